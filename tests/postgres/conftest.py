"""Servers for the tests of this directory; each is stopped by the fixture that started it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest

from tests.postgres.receivers import Archive
from tests.postgres.servers import Server


class StartServer(Protocol):
    """Makes and starts a cluster; settings are those of postgresql.conf."""

    def __call__(self, name: str = "data", *, version: int = 18, **settings: object) -> Server: ...


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    with ExitStack() as running:

        def start(name: str = "data", *, version: int = 18, **settings: object) -> Server:
            server = Server(tmp_path / "servers", version=version, name=name)
            running.callback(server.stop)
            return server.create(**settings)

        yield start


@pytest.fixture
def server(start_server: StartServer) -> Server:
    """A cluster of the newest version."""
    return start_server()


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """A repository; receivers that were started for it are killed."""
    made = Archive(tmp_path / "archive")
    yield made
    made.close()
