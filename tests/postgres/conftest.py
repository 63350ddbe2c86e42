"""Servers for the tests of this directory; each is stopped by the fixture that started it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from backstay.repository.repository import Repository
from backstay.storage.local import LocalStorage
from tests.operations.copies import SECRET
from tests.postgres.receivers import Archive
from tests.postgres.servers import Server, open_place


class StartServer(Protocol):
    """Makes and starts a cluster; settings are those of postgresql.conf."""

    def __call__(
        self, name: str = "data", *, version: int = 18, segment_mib: int = 16, **settings: object
    ) -> Server: ...


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory for servers."""
    with open_place() as place:
        yield place


@pytest.fixture
def start_server(place: Path) -> Iterator[StartServer]:
    with ExitStack() as running:

        def start(name: str = "data", *, version: int = 18, segment_mib: int = 16, **settings: object) -> Server:
            server = Server(place, version=version, name=name)
            running.callback(server.stop)
            return server.create(segment_mib=segment_mib, **settings)

        yield start


@pytest.fixture
def server(start_server: StartServer) -> Server:
    """A cluster of the newest version."""
    return start_server()


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository.create(LocalStorage(tmp_path / "repository"), SECRET) as repository:
        yield repository


@pytest.fixture
def stopping() -> Iterator[list[Server]]:
    """Servers to be stopped at the end."""
    servers: list[Server] = []
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """A repository; receivers that were started for it are killed."""
    made = Archive(tmp_path / "archive")
    yield made
    made.close()
