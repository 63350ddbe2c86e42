"""Catalogs of both databases, with their tables; each test has its own. For the conftest of whoever needs them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from backstay.catalog.database import Catalog
from backstay.testing.clock import FakeClock
from tests.postgres.servers import Server, running_server

_numbers = count(1)


@pytest.fixture(scope="session")
def catalog_server() -> Iterator[Server]:
    with running_server() as server:
        yield server


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("catalog") / "catalog.db"
    with Catalog.open(f"sqlite:///{file}") as catalog:
        catalog.migrate()
    return file


@pytest.fixture(scope="session")
def postgresql_template(catalog_server: Server) -> str:
    catalog_server.sql("create database template_of_catalogs")
    with Catalog.open(url_of(catalog_server, "template_of_catalogs")) as catalog:
        catalog.migrate()
    return "template_of_catalogs"


def url_of(server: Server, database: str) -> str:
    return server.url.rpartition("/")[0] + "/" + database


@pytest.fixture
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """The address of a new catalog with tables."""

    def make(kind: str) -> str:
        if kind == "sqlite":
            file = tmp_path / f"catalog-{next(_numbers)}.db"
            shutil.copy(request.getfixturevalue("sqlite_template"), file)
            return f"sqlite:///{file}"
        server: Server = request.getfixturevalue("catalog_server")
        name = f"catalog_{next(_numbers)}"
        server.sql(f"create database {name} template {request.getfixturevalue('postgresql_template')}")
        return url_of(server, name)

    return make


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
