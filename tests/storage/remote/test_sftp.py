"""The store on an SFTP server: two real servers, what they lack, and what goes wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from backstay.storage.backend import StorageBackend
from backstay.storage.sftp import SftpStorage, open_sftp
from backstay.testing import StorageConformance
from tests.storage.remote.conftest import Keys
from tests.storage.remote.processes import ServerProcess, free_port, script
from tests.storage.remote.sftp_server import USER, SftpServer

NAME = "packs/ab/object"
DATA = bytes(range(256)) * 40
LARGE = os.urandom(6 << 20)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What the server offers."""
    place = tmp_path / "files"
    place.mkdir()
    return place


@pytest.fixture
def server(files: Path, keys: Keys, trusted: Path) -> Iterator[SftpServer]:
    running = SftpServer(files, keys.host, keys.directory / "authorized_keys").start()
    trust(trusted, keys, running.port)
    yield running
    running.stop()


@pytest.fixture
def store(server: SftpServer) -> Iterator[SftpStorage]:
    with open_sftp(address(server.port)) as backend:
        yield backend


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory, keys: Keys) -> Iterator[tuple[ServerProcess, Path]]:
    files = tmp_path_factory.mktemp("rclone")
    server = rclone_server(files, keys).start()
    yield server, files
    server.stop()


def rclone_server(files: Path, keys: Keys) -> ServerProcess:
    port = free_port()
    directory = keys.directory
    return ServerProcess(
        [
            script("rclone"), "serve", "sftp", str(files), f"--addr=127.0.0.1:{port}", f"--key={directory}/host_key",
            f"--authorized-keys={directory}/authorized_keys", "--config=/dev/null",
        ],
        port,
    )  # fmt: skip


def address(port: int, path: str = "/made/repository") -> str:
    return f"sftp://{USER}@127.0.0.1:{port}{path}"


def trust(home: Path, keys: Keys, port: int) -> None:
    with (home / ".ssh" / "known_hosts").open("a") as known:
        known.write(keys.known_host(port))


def files_of(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


class TestAsyncsshServer(StorageConformance):
    @pytest.fixture
    def backend(self, store: SftpStorage) -> StorageBackend:
        return store


class TestWithoutHardLinks(StorageConformance):
    @pytest.fixture
    def backend(self, server: SftpServer, store: SftpStorage) -> StorageBackend:
        server.behaviour.links = False
        return store


class TestRcloneServer(StorageConformance):
    @pytest.fixture
    def backend(
        self, rclone: tuple[ServerProcess, Path], trusted: Path, keys: Keys, tmp_path: Path
    ) -> Iterator[StorageBackend]:
        trust(trusted, keys, rclone[0].port)
        with open_sftp(address(rclone[0].port, f"/{tmp_path.name}")) as backend:
            yield backend
