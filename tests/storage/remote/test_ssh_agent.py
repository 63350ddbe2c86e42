"""A key that only the SSH agent has."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from backstay.errors import StorageRefused
from backstay.storage.sftp import open_sftp
from tests.storage.remote.conftest import Keys
from tests.storage.remote.processes import wait_until
from tests.storage.remote.sftp_server import USER, SftpServer


@pytest.fixture
def server(tmp_path: Path, keys: Keys, home: Path) -> Iterator[SftpServer]:
    (tmp_path / "files").mkdir()
    running = SftpServer(tmp_path / "files", keys.host, keys.directory / "authorized_keys").start()
    (home / ".ssh/known_hosts").write_text(keys.known_host(running.port))
    yield running
    running.stop()


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The socket of an agent without keys."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("ssh-agent is not installed")
    place = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(place)], stdout=subprocess.DEVNULL)
    try:
        wait_until(place.exists)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(place))
        yield place
    finally:
        process.terminate()
        process.wait(10)


def add(home: Path, key: bytes) -> None:
    """Give the agent a key whose file is gone afterwards."""
    file = home / "key"
    file.touch(mode=0o600)
    file.write_bytes(key)
    subprocess.run(["ssh-add", "-q", str(file)], check=True)
    file.unlink()


def test_a_key_of_the_agent_opens_the_store(agent: Path, server: SftpServer, keys: Keys, home: Path) -> None:
    address = f"sftp://{USER}@127.0.0.1:{server.port}/repository"
    with open_sftp(address) as store, pytest.raises(StorageRefused, match="does not let us in"):
        store.store("a", b"x")
    add(home, (keys.directory / "id_ed25519").read_bytes())
    assert not [*(home / ".ssh").glob("id_*")]
    with open_sftp(address) as store:
        store.store("a", b"x")
        assert store.retrieve("a") == b"x"


def test_an_agent_with_another_key_is_no_obstacle(agent: Path, server: SftpServer, keys: Keys, home: Path) -> None:
    add(home, asyncssh.generate_private_key("ssh-ed25519").export_private_key())
    shutil.copy(keys.directory / "id_ed25519", home / ".ssh/id_ed25519")
    with open_sftp(f"sftp://{USER}@127.0.0.1:{server.port}/repository") as store:
        store.store("a", b"x")


def test_an_agent_that_has_gone_is_no_obstacle(
    server: SftpServer, keys: Keys, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "no-such-agent"))
    shutil.copy(keys.directory / "id_ed25519", home / ".ssh/id_ed25519")
    with open_sftp(f"sftp://{USER}@127.0.0.1:{server.port}/repository") as store:
        store.store("a", b"x")
