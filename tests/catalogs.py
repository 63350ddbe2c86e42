"""Catalogs of both databases, with their tables; each test has its own. For the conftest of whoever needs them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from backstay.catalog.database import Catalog
from backstay.catalog.migrating import REVISIONS
from backstay.catalog.models import Base
from backstay.testing.clock import FakeClock
from tests.postgres.servers import Server, running_server

_numbers = count(1)


_running: list[Server] = []
_emptied: list[str] = []  # addresses of databases on it that nobody uses


@pytest.fixture(scope="session")
def catalog_server() -> Iterator[Server]:
    """One server for all directories of tests that have this fixture."""
    if _running:
        yield _running[0]
        return
    with running_server() as server:
        _running.append(server)
        yield server
        _running.clear()
        _emptied.clear()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("catalog") / "catalog.db"
    with Catalog.open(f"sqlite:///{file}") as catalog:
        catalog.migrate()
    return file


@pytest.fixture(scope="session")
def postgresql_template(catalog_server: Server) -> str:
    name = f"template_{next(_numbers)}"
    make_database(catalog_server, name)
    with Catalog.open(url_of(catalog_server, name)) as catalog:
        catalog.migrate()
    return name


def make_database(server: Server, name: str, template: str = "template1") -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(name), Identifier(template)))


def empty_database(url: str) -> None:
    """As it was made, without its guards being asked: a new one is megabytes of files."""
    tables = SQL(", ").join(Identifier(name) for name in Base.metadata.tables)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(SQL("TRUNCATE {} RESTART IDENTITY").format(tables))
        connection.execute("UPDATE alembic_version SET version_num = %s", (REVISIONS[-1],))


def url_of(server: Server, database: str) -> str:
    return server.url.rpartition("/")[0] + "/" + database


@pytest.fixture
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """The address of a new catalog with tables."""
    used: list[str] = []

    def make(kind: str) -> str:
        if kind == "sqlite":
            file = tmp_path / f"catalog-{next(_numbers)}.db"
            shutil.copy(request.getfixturevalue("sqlite_template"), file)
            return f"sqlite:///{file}"
        server: Server = request.getfixturevalue("catalog_server")
        if not _emptied:
            name = f"catalog_{next(_numbers)}"
            make_database(server, name, request.getfixturevalue("postgresql_template"))
            _emptied.append(url_of(server, name))
        used.append(_emptied.pop())
        return used[-1]

    yield make
    for url in used:
        empty_database(url)
    _emptied.extend(used)


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog(request: pytest.FixtureRequest, new_url: Callable[[str], str]) -> Iterator[Catalog]:
    with Catalog.open(new_url(request.param)) as catalog:
        yield catalog


@pytest.fixture
def sqlite_catalog(new_url: Callable[[str], str]) -> Iterator[Catalog]:
    with Catalog.open(new_url("sqlite")) as catalog:
        yield catalog


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
