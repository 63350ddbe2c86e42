"""A home directory of its own for every test of a remote store, and what servers need."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncssh
import pytest

from backstay.storage.sftp import SftpStorage, open_sftp
from tests.storage.remote.certificates import Certificates, make_certificates
from tests.storage.remote.sftp_server import SftpServer, address, trust


@dataclass(frozen=True)
class Keys:
    """What the SSH servers and the user of these tests have."""

    directory: Path  # id_ed25519, id_ed25519.pub, host_key, authorized_keys
    host: asyncssh.SSHKey

    def known_host(self, port: int) -> str:
        """The line of known_hosts for a server on this port."""
        return f"[127.0.0.1]:{port} {self.host.export_public_key().decode()}"


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    directory = tmp_path_factory.mktemp("keys")
    user, host = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    user.write_private_key(directory / "id_ed25519")
    user.write_public_key(directory / "id_ed25519.pub")
    user.write_public_key(directory / "authorized_keys")
    host.write_private_key(directory / "host_key")
    return Keys(directory, host)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory, and no credentials from whoever runs the tests."""
    place = tmp_path / "home"
    (place / ".ssh").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("HOME", str(place))
    for name in (
        "SSH_AUTH_SOCK",
        "NETRC",
        *(f"BACKSTAY_{kind}_PASSWORD" for kind in ("SFTP", "FTP", "WEBDAV", "IPFS")),
    ):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return place


@pytest.fixture
def trusted(home: Path, keys: Keys) -> Path:
    """A home with the user's key in it; known hosts are added by `trust`."""
    for name in ("id_ed25519", "id_ed25519.pub"):
        shutil.copy(keys.directory / name, home / ".ssh" / name)
    return home


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def write_netrc(home: Path, user: str, password: str, host: str = "127.0.0.1") -> None:
    """Credentials where curl and ftp look for them."""
    path = home / ".netrc"
    path.write_text(f"machine {host} login {user} password {password}\n")
    path.chmod(0o600)


# --- an SFTP server in this process; tests of other protocols have their own fixtures of these names ---


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
