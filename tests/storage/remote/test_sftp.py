"""The store on an SFTP server: two real servers, what they lack, and what goes wrong."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncssh
import pytest

from backstay.errors import (
    BackstayError,
    InsufficientSpace,
    InvalidRequest,
    ObjectExists,
    ObjectNotFound,
    StorageMissing,
    StorageRefused,
    StorageUnavailable,
)
from backstay.storage.address import parse_address
from backstay.storage.backend import Capabilities, StorageBackend
from backstay.storage.patience import Patience
from backstay.storage.probing import probe_capabilities
from backstay.storage.registry import open_backend
from backstay.storage.sftp import SftpStorage, open_sftp
from backstay.testing import StorageConformance
from tests.ports import free_port
from tests.storage.remote.conftest import Keys
from tests.storage.remote.processes import ServerProcess, script, wait_until
from tests.storage.remote.proxy import CuttingProxy
from tests.storage.remote.reached import reached
from tests.storage.remote.sftp_server import PASSWORD, USER, SftpServer, address, files_of, make_older, trust

NAME = "packs/ab/object"
DATA = bytes(range(256)) * 40
LARGE = os.urandom(6 << 20)


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
            yield reached(backend)


# --- how objects come to be ---


def test_bytes_are_on_disk_before_the_name_exists(server: SftpServer, store: SftpStorage, files: Path) -> None:
    store.store("first", DATA)
    (files / "made/repository/first").unlink()
    server.behaviour.fail["link"] = errno.EIO
    with pytest.raises(StorageUnavailable):
        store.store(NAME, DATA)
    assert server.behaviour.calls["fsync"] == 2
    assert files_of(files) == []
    server.behaviour.fail.clear()
    store.store(NAME, DATA)
    assert server.behaviour.calls["sync directory"] > 0
    assert files_of(files) == [f"made/repository/{NAME}"]
    assert (files / "made/repository" / NAME).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("fails", ["fsync", "write", "open"])
def test_a_store_that_fails_leaves_nothing(fails: str, server: SftpServer, store: SftpStorage, files: Path) -> None:
    store.store("packs/ab/other", DATA)
    server.behaviour.fail[fails] = errno.EIO
    for overwrite in (False, True):
        with pytest.raises(StorageUnavailable):
            store.store(NAME, DATA, overwrite=overwrite)
    server.behaviour.fail.clear()
    assert files_of(files) == ["made/repository/packs/ab/other"]


def test_a_server_that_keeps_fewer_bytes_is_noticed(server: SftpServer, store: SftpStorage, files: Path) -> None:
    server.behaviour.stored_less = 1
    with pytest.raises(StorageUnavailable, match="did not arrive whole"):
        store.store(NAME, DATA)
    assert files_of(files) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(number: int, server: SftpServer, store: SftpStorage, files: Path) -> None:
    store.store("a", DATA)
    server.behaviour.fail["write"] = number
    server.behaviour.free = 100
    with pytest.raises(InsufficientSpace, match="b"):
        store.store("b", DATA)
    assert files_of(files) == ["made/repository/a"]


def test_directories_are_made_once(server: SftpServer, store: SftpStorage) -> None:
    for number in range(3):
        store.store(f"packs/ab/{number}", DATA)
    assert server.behaviour.calls["mkdir"] == 4  # made, repository, packs, ab


def test_a_server_without_exclusive_creation_says_so(server: SftpServer, store: SftpStorage) -> None:
    server.behaviour.links = server.behaviour.exclusive = False
    assert store.capabilities == Capabilities(atomic_create=False, atomic_replace=False)
    assert probe_capabilities(store) == Capabilities(atomic_create=False, atomic_replace=False)
    store.store(NAME, DATA)
    with pytest.raises(ObjectExists):
        store.store(NAME, b"other")


def test_a_good_server_is_probed(store: SftpStorage) -> None:
    assert probe_capabilities(store) == Capabilities()


def test_rclone_decides_no_races(rclone: tuple[ServerProcess, Path], trusted: Path, keys: Keys, tmp_path: Path) -> None:
    trust(trusted, keys, rclone[0].port)
    with open_sftp(address(rclone[0].port, f"/{tmp_path.name}")) as store:
        assert probe_capabilities(store) == Capabilities(atomic_create=False, atomic_replace=False)


def test_without_posix_rename_nothing_is_replaced(server: SftpServer, store: SftpStorage) -> None:
    server.behaviour.posix_rename = False
    store.store("a", DATA, overwrite=True)
    with pytest.raises(StorageUnavailable, match="cannot replace"):
        store.store("a", b"other", overwrite=True)
    assert store.retrieve("a") == DATA


def test_sweeping_takes_old_temporaries_only(store: SftpStorage, files: Path) -> None:
    store.store(NAME, DATA)
    for age in (60, 7200):
        path = files / "made/repository/packs/ab" / f".tmp-{age}"
        path.write_bytes(b"half")
        make_older(path, age)
    assert [info.name for info in store.list()] == [NAME]
    assert store.sweep_temporaries(3600) == 1
    assert files_of(files) == ["made/repository/packs/ab/.tmp-60", f"made/repository/{NAME}"]


# --- absent is not unknown ---


def calls(store: StorageBackend) -> dict[str, Callable[[], object]]:
    return {
        "retrieve": lambda: store.retrieve("gone"),
        "stat": lambda: store.stat("gone"),
        "exists": lambda: store.exists("gone"),
        "list": lambda: [*store.list()],
        "list below": lambda: [*store.list("packs/ab/")],
        "delete": lambda: store.delete("gone"),
        "sweep": lambda: store.sweep_temporaries(0),
    }


def test_a_root_that_never_was_is_missing(store: SftpStorage, files: Path) -> None:
    for call in calls(store).values():
        with pytest.raises(StorageMissing):
            call()
    assert not [*files.iterdir()]


def test_a_root_that_went_away_is_missing(store: SftpStorage, files: Path) -> None:
    store.store(NAME, DATA)
    (files / "made").rename(files / "away")
    for call in calls(store).values():
        with pytest.raises(StorageMissing):
            call()
    with pytest.raises(StorageMissing):
        store.store("a", DATA)
    assert not (files / "made").exists()


def test_a_directory_that_cannot_be_read_is_no_empty_one(server: SftpServer, store: SftpStorage, files: Path) -> None:
    store.store(NAME, DATA)
    store.store("a", DATA)
    server.behaviour.fail["scandir"] = errno.EACCES
    with pytest.raises(StorageRefused) as caught:
        [*store.list()]
    assert "permissions" in caught.value.hint
    server.behaviour.fail["scandir"] = errno.ENOENT  # it was there a moment ago
    with pytest.raises(StorageUnavailable):
        [*store.list("packs/")]


def test_links_are_no_objects_but_may_be_directories(store: SftpStorage, files: Path) -> None:
    root = files / "made/repository"
    store.store(NAME, DATA)
    (root / "elsewhere").symlink_to("packs")
    assert [info.name for info in store.list("elsewhere/")] == ["elsewhere/ab/object"]
    (root / "link").symlink_to("elsewhere/ab/object")
    with pytest.raises(StorageUnavailable, match="link"):
        [*store.list()]


# --- who we are, who they are ---


def test_an_unknown_host_key_is_refused(server: SftpServer, trusted: Path, files: Path) -> None:
    (trusted / ".ssh" / "known_hosts").unlink()
    with open_sftp(address(server.port)) as store, pytest.raises(StorageRefused, match="not known") as caught:
        store.store("a", DATA)
    assert f"ssh -p {server.port} 127.0.0.1" in caught.value.hint
    assert not (trusted / ".ssh" / "known_hosts").exists(), "a key is never trusted on first use"
    assert files_of(files) == []


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
def test_another_host_key_is_refused_with_a_warning(server: SftpServer, trusted: Path, kind: str) -> None:
    other = asyncssh.generate_private_key(kind).export_public_key().decode()
    (trusted / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {other}")
    with (
        open_sftp(address(server.port)) as store,
        pytest.raises(StorageRefused, match="does not have the host key") as e,
    ):
        store.store("a", DATA)
    assert e.value.hint.startswith("somebody may have taken its place")


def test_a_revoked_host_key_is_refused_with_its_reason(server: SftpServer, trusted: Path) -> None:
    known = trusted / ".ssh" / "known_hosts"
    known.write_text(known.read_text() + f"@revoked * {known.read_text().partition(' ')[2]}")
    with open_sftp(address(server.port)) as store, pytest.raises(StorageRefused, match="does not have") as caught:
        store.store("a", DATA)
    assert "revoked" in caught.value.cause


def test_a_line_of_known_hosts_that_is_none_is_skipped_and_told(
    server: SftpServer, trusted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    known = trusted / ".ssh" / "known_hosts"
    host, _, key = known.read_text().strip().partition(" ")
    known.write_bytes(
        f"# \nnonsense\n@odd {host} {key}\n{host} {key} ".encode() + b"Ren\xe9\n|1|x ssh-rsa AAAA\n@revoked"
    )
    with open_sftp(address(server.port)) as store:
        store.store("a", DATA)
    assert [record.getMessage() for record in caplog.records if record.name == "backstay.storage"] == [
        f"line {number} of {known} is no entry for a host, and is skipped" for number in (2, 3, 6)
    ]


@pytest.mark.parametrize(("port", "taken"), [(None, True), (22, False)])
def test_an_entry_counts_for_its_port_and_one_without_for_all(
    server: SftpServer, trusted: Path, port: int | None, taken: bool
) -> None:
    known = trusted / ".ssh" / "known_hosts"
    key = known.read_text().partition(" ")[2]
    known.write_text(f"[127.0.0.1]:{port} {key}" if port else f"127.0.0.1 {key}")
    with open_sftp(address(server.port)) as store:
        if taken:
            store.store("a", DATA)
        else:
            with pytest.raises(StorageRefused, match="not known"):
                store.store("a", DATA)


def test_a_key_that_is_revoked_for_the_port_is_refused_where_another_entry_trusts_it(
    server: SftpServer, trusted: Path
) -> None:
    known = trusted / ".ssh" / "known_hosts"
    key = known.read_text().partition(" ")[2]
    known.write_text(f"@revoked [127.0.0.1]:{server.port} {key}127.0.0.1 {key}")
    with open_sftp(address(server.port)) as store, pytest.raises(StorageRefused, match="does not have") as caught:
        store.store("a", DATA)
    assert "revoked" in caught.value.cause


def test_the_check_of_host_keys_cannot_be_switched_off(server: SftpServer, trusted: Path) -> None:
    (trusted / ".ssh" / "config").write_text("Host *\n  UserKnownHostsFile none\n  StrictHostKeyChecking no\n")
    with open_sftp(address(server.port)) as store, pytest.raises(InvalidRequest, match="switches off"):
        store.store("a", DATA)


def test_names_of_the_ssh_configuration_work(server: SftpServer, trusted: Path) -> None:
    (trusted / ".ssh" / "known_hosts").write_text(
        (trusted / ".ssh" / "known_hosts").read_text().replace("[127.0.0.1]", "[localhost]")
    )
    (trusted / ".ssh" / "config").write_text(
        f"Host backups\n  HostName 127.0.0.1\n  HostKeyAlias localhost\n  Port {server.port}\n  User {USER}\n"
    )
    with open_backend("sftp://backups/~/repository") as store:
        store.store("a", DATA)
        assert store.retrieve("a") == DATA
        assert store.url == "sftp://backups/~/repository"


def test_a_key_that_the_server_does_not_know(server: SftpServer, trusted: Path) -> None:
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(trusted / ".ssh" / "id_ed25519")
    (trusted / ".ssh" / "id_ed25519.pub").unlink()
    with open_sftp(address(server.port)) as store, pytest.raises(StorageRefused, match="does not let us in") as caught:
        store.store("a", DATA)
    assert "BACKSTAY_SFTP_PASSWORD" in caught.value.hint


def test_a_password_from_the_environment(server: SftpServer, trusted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (trusted / ".ssh" / "id_ed25519").unlink()
    monkeypatch.setenv("BACKSTAY_SFTP_PASSWORD", PASSWORD)
    with open_sftp(address(server.port)) as store:
        store.store("a", DATA)
    monkeypatch.setenv("BACKSTAY_SFTP_PASSWORD", "wrong secret")
    with open_sftp(address(server.port)) as store, pytest.raises(StorageRefused) as caught:
        store.retrieve("a")
    assert "secret" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    "url",
    ["sftp://me:hidden@host/x", "sftp:///x", "sftp://host", "sftp://host/~", "sftp://host/a/../b", "sftp://host/x?y",
     "sftp://host:port/x", "sftp://me:hidden@host:port/x", "sftp://host/a%0ab"],
)  # fmt: skip
def test_addresses_that_make_no_sense(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        open_backend(url)
    assert "hidden" not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"


def test_nobody_listens(trusted: Path) -> None:
    with open_sftp(address(free_port())) as store, pytest.raises(StorageUnavailable, match="cannot be reached"):
        store.retrieve("a")


# --- connections ---


def test_a_connection_that_was_dropped_is_opened_again(server: SftpServer, trusted: Path, keys: Keys) -> None:
    with CuttingProxy(server.port) as proxy:
        trust(trusted, keys, proxy.port)
        with open_sftp(address(proxy.port)) as store:
            store.store("a", DATA)
            proxy.drop()
            wait_until(lambda: proxy.connections == 1 and not alive(store))
            assert store.retrieve("a") == DATA
            assert proxy.connections == 2


def alive(store: SftpStorage) -> bool:
    assert store._connections is not None
    return any(not connection.ssh.is_closed() for connection in store._connections._open)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_connection_lost_while_storing(
    overwrite: bool, server: SftpServer, trusted: Path, keys: Keys, files: Path
) -> None:
    with CuttingProxy(server.port) as proxy:
        trust(trusted, keys, proxy.port)
        with open_sftp(address(proxy.port)) as store:
            store.store(NAME, DATA)
            proxy.cut_up = len(LARGE) // 2
            with pytest.raises(StorageUnavailable, match="went away"):
                store.store(NAME if overwrite else "new", LARGE, overwrite=overwrite)
            assert proxy.cuts == 1
            assert {info.name: info.size for info in store.list()} == {NAME: len(DATA)}
            assert store.retrieve(NAME) == DATA
            store.store(NAME, LARGE, overwrite=True)
            assert store.retrieve(NAME) == LARGE


@pytest.mark.parametrize("length", [None, len(DATA)])
def test_a_read_may_take_what_its_bytes_need(server: SftpServer, store: SftpStorage, length: int | None) -> None:
    store.store(NAME, DATA)
    server.behaviour.read_s = 1.2
    patience = Patience(silence=1.0, slowest=len(DATA) // 20)
    with SftpStorage(parse_address(address(server.port), credentials=""), patience=patience) as slow:
        assert slow.retrieve(NAME, length=length) == DATA


def test_a_read_that_takes_longer_than_its_bytes_need_is_given_up(server: SftpServer, store: SftpStorage) -> None:
    store.store(NAME, DATA)
    server.behaviour.read_s = 0.8
    with (
        SftpStorage(parse_address(address(server.port), credentials=""), patience=Patience(silence=0.2)) as hasty,
        pytest.raises(StorageUnavailable, match="did not answer in time"),
    ):
        hasty.retrieve(NAME)


def test_a_connection_lost_while_reading(server: SftpServer, trusted: Path, keys: Keys) -> None:
    with CuttingProxy(server.port) as proxy:
        trust(trusted, keys, proxy.port)
        with open_sftp(address(proxy.port)) as store:
            store.store(NAME, LARGE)
            proxy.cut_down = len(LARGE) // 2
            with pytest.raises(StorageUnavailable):
                store.retrieve(NAME)
            assert proxy.cuts == 1
            assert store.retrieve(NAME) == LARGE


def test_a_server_that_is_killed_while_storing(trusted: Path, keys: Keys, files: Path) -> None:
    server = rclone_server(files, keys).start()
    trust(trusted, keys, server.port)
    failures: list[BackstayError] = []

    def put(into: StorageBackend) -> None:
        try:
            into.store(NAME, bytes(64 << 20))
        except BackstayError as error:
            failures.append(error)

    try:
        with open_sftp(address(server.port)) as store:
            store.store("a", DATA)
            writer = threading.Thread(target=put, args=(store,))
            writer.start()
            wait_until(lambda: any(path.stat().st_size for path in files.rglob(".tmp-*")))
            server.kill()
            writer.join()
            assert [type(error) for error in failures] == [StorageUnavailable]
            server.start()
            assert [info.name for info in store.list()] == ["a"]
            with pytest.raises(ObjectNotFound):
                store.retrieve(NAME)
            store.store(NAME, DATA)
            assert store.sweep_temporaries(0) == 1
            assert files_of(files) == ["made/repository/a", f"made/repository/{NAME}"]
    finally:
        server.stop()


def test_closing_twice_is_fine(store: SftpStorage) -> None:
    store.store("a", DATA)
    store.close()
    store.close()
