"""Engines to try: on a SQLite file, and on a PostgreSQL server from a wheel."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeAlias

import pytest

from backstay.catalog.database import Catalog
from backstay.control.jobs.dbos_engine import DbosEngine
from backstay.core.clock import Clock, SystemClock
from tests.postgres.servers import Server, open_place

OpenEngine: TypeAlias = Callable[..., DbosEngine]

_EMPTY = """
    do $$ declare name text; begin
        for name in select format('%I.%I', schemaname, tablename) from pg_tables
            where schemaname = 'dbos' and tablename <> 'dbos_migrations' or tablename in ('jobs', 'workers')
        loop execute 'truncate ' || name || ' cascade'; end loop;
    end $$
"""


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server for all tests of a process."""
    with open_place() as place:
        server = Server(place)
        try:
            yield server.create(max_connections=200)
        finally:
            server.stop()


@pytest.fixture
def postgres_url(postgres: Server) -> Iterator[str]:
    """A database whose tables are empty, once they are there: to empty them is faster than to make them."""
    yield postgres.url
    postgres.sql(_EMPTY)


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine_url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where the jobs of this test are kept."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path}/jobs.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def catalog_url(kind: str, engine_url: str, tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/catalog.db" if kind == "sqlite" else engine_url


@pytest.fixture(scope="session")
def empty_catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalog without rows: to copy it is faster than to make one."""
    place = tmp_path_factory.mktemp("catalog") / "catalog.db"
    with Catalog.open(f"sqlite:///{place}") as catalog:
        catalog.migrate()
    return place


@pytest.fixture
def catalog(catalog_url: str, kind: str, empty_catalog: Path, tmp_path: Path) -> Iterator[Catalog]:
    if kind == "sqlite":
        (tmp_path / "catalog.db").touch(mode=0o600)
        shutil.copyfile(empty_catalog, tmp_path / "catalog.db")
    with Catalog.open(catalog_url) as catalog:
        catalog.migrate()
        yield catalog


@pytest.fixture
def open_engine(engine_url: str) -> Iterator[OpenEngine]:
    """Opens engines on the same database, as processes would; each is stopped at the end."""
    with ExitStack() as opened:

        def open_one(worker: str = "w1", *, clock: Clock | None = None) -> DbosEngine:
            engine = DbosEngine.open(engine_url, worker=worker, clock=clock or SystemClock(), poll_s=0.05)
            opened.callback(engine.close)
            opened.callback(engine.stop, timeout_s=10)
            return engine

        yield open_one
