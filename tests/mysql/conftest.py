"""One server for all tests of a process; each test finds it empty."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backstay.repository.repository import Repository
from backstay.storage.memory import MemoryStorage
from tests.cli.conftest import account as account
from tests.cli.conftest import saved as saved
from tests.mysql.histories import history as history
from tests.mysql.histories import lived as lived
from tests.mysql.histories import living as living
from tests.mysql.servers import Server
from tests.operations.copies import SECRET
from tests.postgres.receivers import Archive


@contextmanager
def _started(number: int) -> Iterator[Server]:
    # Directories that pytest makes are for their owner alone, and servers do not run as root.
    with tempfile.TemporaryDirectory(prefix="backstay-mysql-", ignore_cleanup_errors=True) as made:
        Path(made).chmod(0o755)
        server = Server(Path(made) / "server", number)
        try:
            yield server.create().start()
        finally:
            server.stop()


@pytest.fixture(scope="session")
def running() -> Iterator[Server]:
    with _started(7) as server:
        yield server


@pytest.fixture(scope="session")
def running_origin() -> Iterator[Server]:
    with _started(8) as server:
        yield server


@pytest.fixture
def origin(running_origin: Server) -> Server:
    """A second server, without databases and with a log that begins anew."""
    running_origin.clear()
    running_origin.sql("RESET MASTER")
    return running_origin


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    made = Archive(tmp_path / "archive")
    yield made
    made.close()


@pytest.fixture
def server(running: Server) -> Server:
    """A server without databases."""
    running.clear()
    return running


@pytest.fixture
def repository() -> Iterator[Repository]:
    with Repository.create(MemoryStorage(), SECRET) as repository:
        yield repository
