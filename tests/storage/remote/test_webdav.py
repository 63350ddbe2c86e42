"""The store on a WebDAV server: two real servers, and what servers and proxies answer at their worst."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from backstay.storage.backend import Capabilities, StorageBackend
from backstay.storage.registry import probe_capabilities
from backstay.storage.webdav import open_webdav
from backstay.testing import StorageConformance
from tests.storage.remote.certificates import Certificates
from tests.storage.remote.conftest import write_netrc
from tests.storage.remote.processes import ServerProcess, free_port, script

USER = "keeper"
PASSWORD = "open-sesame"
NAME = "packs/ab/object"
DATA = bytes(range(256)) * 40


def rclone_server(files: Path, *options: str) -> ServerProcess:
    port = free_port()
    return ServerProcess(
        [script("rclone"), "serve", "webdav", str(files), f"--addr=127.0.0.1:{port}", "--config=/dev/null", *options],
        port,
        {"RCLONE_USER": USER, "RCLONE_PASS": PASSWORD},
    )


def wsgidav_server(files: Path, settings: Path) -> ServerProcess:
    """With digest authentication, which it offers by default."""
    port = free_port()
    settings.write_text(
        json.dumps(
            {
                "host": "127.0.0.1",
                "port": port,
                "provider_mapping": {"/": str(files)},
                "simple_dc": {"user_mapping": {"*": {USER: {"password": PASSWORD}}}},
                "http_authenticator": {"accept_basic": False, "accept_digest": True, "default_to_digest": True},
                "verbose": 0,
                "logging": {"enable": False},
            }
        )
    )
    return ServerProcess([script("wsgidav"), f"--config={settings}"], port)


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = rclone_server(tmp_path_factory.mktemp("rclone")).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[ServerProcess]:
    server = rclone_server(
        tmp_path_factory.mktemp("secure"), f"--cert={certificates.server}", f"--key={certificates.server}"
    ).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def wsgidav(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    place = tmp_path_factory.mktemp("wsgidav")
    (place / "files").mkdir()
    server = wsgidav_server(place / "files", place / "settings.json").start()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def login(home: Path) -> None:
    write_netrc(home, USER, PASSWORD)


class TestRcloneServer(StorageConformance):
    @pytest.fixture
    def backend(self, rclone: ServerProcess, tmp_path: Path) -> Iterator[StorageBackend]:
        with open_webdav(f"webdav://127.0.0.1:{rclone.port}/{tmp_path.name}/a b") as store:
            yield store


class TestRcloneServerWithTls(StorageConformance):
    @pytest.fixture
    def backend(
        self, secure: ServerProcess, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[StorageBackend]:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
        with open_webdav(f"webdavs://127.0.0.1:{secure.port}/{tmp_path.name}") as store:
            yield store


class TestWsgidavServer(StorageConformance):
    @pytest.fixture
    def backend(self, wsgidav: ServerProcess, tmp_path: Path) -> Iterator[StorageBackend]:
        with open_webdav(f"webdav://{USER}@127.0.0.1:{wsgidav.port}/{tmp_path.name}") as store:
            yield store


def test_locks_decide_races(rclone: ServerProcess, wsgidav: ServerProcess, tmp_path: Path) -> None:
    for server in (rclone, wsgidav):
        with open_webdav(f"webdav://127.0.0.1:{server.port}/{tmp_path.name}") as store:
            assert probe_capabilities(store) == Capabilities(atomic_replace=False)
