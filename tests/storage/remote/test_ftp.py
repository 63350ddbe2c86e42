"""The store on an FTP server: two real servers, with and without TLS, and what goes wrong."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from backstay.errors import (
    BackstayError,
    InsufficientSpace,
    InvalidRequest,
    ObjectExists,
    StorageMissing,
    StorageRefused,
    StorageUnavailable,
)
from backstay.operations.trials.check_storage import check_storage
from backstay.storage.address import parse_address
from backstay.storage.backend import Capabilities, StorageBackend
from backstay.storage.ftp import FtpStorage, open_ftp
from backstay.storage.ftp_connections import Ftp
from backstay.storage.patience import Patience
from backstay.storage.probing import probe_capabilities
from backstay.storage.registry import open_backend
from backstay.testing import StorageConformance
from tests.ports import free_port
from tests.storage.remote.certificates import Certificates, make_certificates
from tests.storage.remote.conftest import write_netrc
from tests.storage.remote.ftp_stub import ENTRY, FtpStub, ftp_stub
from tests.storage.remote.processes import ServerProcess, script, wait_until
from tests.storage.remote.proxy import CuttingProxy
from tests.storage.remote.reached import reached

USER = "keeper"
PASSWORD = "open-sesame"
NAME = "packs/ab/object"
DATA = bytes(range(256)) * 40


def pyftpdlib_server(files: Path, *certificate: str) -> ServerProcess:
    port = free_port()
    program = str(Path(__file__).with_name("ftp_server.py"))
    return ServerProcess([sys.executable, program, str(port), str(files), USER, PASSWORD, *certificate], port)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Path]]:
    files = tmp_path_factory.mktemp("pyftpdlib")
    server = pyftpdlib_server(files).start()
    yield server, files
    server.stop()


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[ServerProcess]:
    server = pyftpdlib_server(tmp_path_factory.mktemp("secure"), str(certificates.server)).start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    port, passive = free_port(), free_port()
    server = ServerProcess(
        [
            script("rclone"), "serve", "ftp", str(tmp_path_factory.mktemp("rclone")), f"--addr=127.0.0.1:{port}",
            "--config=/dev/null", f"--passive-port={passive % 30000 + 30000}-{passive % 30000 + 30200}",
        ],
        port,
        {"RCLONE_USER": USER, "RCLONE_PASS": PASSWORD},
    ).start()  # fmt: skip
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def login(home: Path) -> None:
    write_netrc(home, USER, PASSWORD)


@pytest.fixture
def files(plain: tuple[ServerProcess, Path], tmp_path: Path) -> Path:
    """Where the files of `store` are."""
    return plain[1] / tmp_path.name


@pytest.fixture
def store(plain: tuple[ServerProcess, Path], tmp_path: Path) -> Iterator[FtpStorage]:
    with open_ftp(f"ftp://127.0.0.1:{plain[0].port}/{tmp_path.name}") as backend:
        yield backend


class TestPyftpdlib(StorageConformance):
    @pytest.fixture
    def backend(self, store: FtpStorage) -> StorageBackend:
        return store


class TestPyftpdlibWithTls(StorageConformance):
    @pytest.fixture
    def backend(
        self, secure: ServerProcess, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[StorageBackend]:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
        with open_ftp(f"ftps://{USER}@127.0.0.1:{secure.port}/~/{tmp_path.name}") as backend:
            yield backend


class TestRclone(StorageConformance):
    @pytest.fixture
    def backend(self, rclone: ServerProcess, tmp_path: Path) -> Iterator[StorageBackend]:
        with open_ftp(f"ftp://127.0.0.1:{rclone.port}/{tmp_path.name}") as backend:
            yield reached(backend)


def test_what_it_can_do(store: FtpStorage) -> None:
    assert probe_capabilities(store) == Capabilities(atomic_create=False, atomic_replace=False)


def test_a_check_says_that_only_one_program_may_write(store: FtpStorage) -> None:
    assert check_storage(store, size=1 << 20).verdict == "limited"


def test_two_kinds_of_calls_on_one_connection(store: FtpStorage) -> None:
    data = b"lines\nof\r\ntext\n" * 1000  # what text mode changes
    store.store("a", data)
    assert [info.size for info in store.list()] == [len(data)]
    assert store.retrieve("a") == data
    assert store.retrieve("a", start=6, length=4) == data[6:10]


def test_only_the_whole_file_gets_its_name(store: FtpStorage, files: Path) -> None:
    store.store(NAME, DATA)
    with pytest.raises(ObjectExists):
        store.store(NAME, b"other")
    left = files / "packs/ab/.tmp-left"
    left.write_bytes(b"half")
    assert [info.name for info in store.list()] == [NAME]
    assert store.sweep_temporaries(3600) == 0
    os.utime(left, (0, left.stat().st_mtime - 7200))
    assert store.sweep_temporaries(3600) == 1
    assert [path.name for path in (files / "packs/ab").iterdir()] == ["object"]


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


def test_a_missing_root_is_told(store: FtpStorage, files: Path) -> None:
    for call in calls(store).values():
        with pytest.raises(StorageMissing):
            call()
    assert not files.exists()
    store.store(NAME, DATA)
    assert store.exists(NAME)
    shutil.rmtree(files)
    for call in calls(store).values():
        with pytest.raises(StorageMissing):
            call()
    with pytest.raises(StorageMissing):
        store.store("a", DATA)
    assert not files.exists(), "nothing is stored where the directory went away"


def test_what_is_neither_file_nor_directory_spoils_a_listing(store: FtpStorage, files: Path) -> None:
    store.store("a", DATA)
    (files / "link").symlink_to("nowhere")
    try:
        names = [info.name for info in store.list()]
    except StorageUnavailable:
        return
    assert names == ["a"], "the server does not show broken links"


# --- who we are, who they are ---


LISTING = "".join(ENTRY.format(name) for name in "abc").encode()
BETWEEN_LINES = 2 * len(ENTRY.format("a"))


def stub_store(server: FtpStub, silence: float = 10) -> FtpStorage:
    address = parse_address(f"ftp://127.0.0.1:{server.port}/r", credentials="nowhere")
    return FtpStorage(address, patience=Patience(connect=5, silence=silence))


@pytest.mark.parametrize("reply", ["226 Transfer complete.", "250 Done."])
def test_a_listing_that_the_server_calls_complete(reply: str) -> None:
    with ftp_stub() as server:
        server.listing, server.reply = LISTING, reply
        with stub_store(server) as store:
            assert [info.name for info in store.list()] == ["a", "b", "c"]
            assert [info.name for info in store.list()] == ["a", "b", "c"]  # on the same connection


@pytest.mark.parametrize(
    "reply",
    ["426 Connection closed; transfer aborted.", "451 Local error.", "550 No more.", "421 Shutting down.", "221 Bye.",
     "200 Okay.", ""],
)  # fmt: skip
def test_a_listing_that_is_cut_between_two_lines_is_an_error(reply: str) -> None:
    with ftp_stub() as server:
        server.listing, server.sent, server.reply = LISTING, BETWEEN_LINES, reply
        with stub_store(server) as store, pytest.raises(StorageUnavailable) as caught:
            store.list()
        assert caught.value.transient


def test_a_listing_whose_end_is_never_told_is_an_error() -> None:
    with ftp_stub() as server:
        server.listing, server.sent, server.reply = LISTING, BETWEEN_LINES, None
        with stub_store(server, silence=0.3) as store, pytest.raises(StorageUnavailable):
            store.list()


def test_a_listing_that_is_cut_within_a_line_is_an_error_whatever_the_server_says() -> None:
    with ftp_stub() as server:
        server.listing, server.sent = LISTING, BETWEEN_LINES + 10
        with stub_store(server) as store, pytest.raises(StorageUnavailable, match="middle of a line"):
            store.list()


def test_a_server_may_speak_in_any_encoding() -> None:
    with ftp_stub() as server:
        server.answers = {"": "220 Willkommen zur\xfcck", "DELE": "450 gesch\xfctzt"}
        server.listing, server.reply = LISTING, "226 Vollst\xe4ndig."
        with stub_store(server) as store:
            assert [info.name for info in store.list()] == ["a", "b", "c"]
            with pytest.raises(StorageUnavailable, match=r"gesch\\xfctzt"):
                store.delete("a")


def test_a_refusal_in_another_encoding_is_told() -> None:
    with ftp_stub() as server:
        server.answers = {"PASS": "530 Zugang verweigert f\xfcr Sie"}
        with stub_store(server) as store, pytest.raises(StorageRefused, match=r"f\\xfcr Sie"):
            store.list()


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("SIZE", "213 file has 10 bytes"),
        ("PASV", f"227 Entering passive mode (127,0,0,1,0,{'9' * 5000})"),
    ],
)
def test_a_number_that_makes_no_sense_is_the_servers_mistake(command: str, answer: str) -> None:
    with ftp_stub() as server, stub_store(server) as store:
        server.answers = {command: answer}
        with pytest.raises(StorageUnavailable, match="makes no sense"):
            store.store("a", DATA)


def test_a_size_that_no_file_has_is_the_servers_mistake() -> None:
    with ftp_stub() as server, stub_store(server) as store:
        server.answers = {"MLST": f"250-Facts\r\n type=file;size={'9' * 5000}; a\r\n250 End"}
        for call in (store.stat, store.retrieve):
            with pytest.raises(StorageUnavailable, match="does not tell its size"):
                call("a")


@pytest.mark.parametrize(
    ("reply", "error", "told"),
    [
        ("552 Exceeded storage allocation.", InsufficientSpace, "storage allocation"),
        ("452 No space.", InsufficientSpace, "No space"),
        ("426 Aborted by the administrator.", StorageUnavailable, "administrator"),
        ("226 Transfer complete.", StorageUnavailable, "reset|Broken pipe"),
    ],
)
def test_why_an_upload_was_broken_off_is_told(reply: str, error: type[BackstayError], told: str) -> None:
    with ftp_stub() as server, stub_store(server) as store:
        server.takes, server.reply = 100_000, reply
        with pytest.raises(error, match=told):
            store.store("a", bytes(8 << 20))
        assert "DELE" in server.asked


def test_an_upload_that_broke_off_without_a_word_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backstay.storage.ftp_connections._LAST_WORD_S", 0.05)
    with ftp_stub() as server, stub_store(server) as store:
        server.takes, server.reply = 100_000, None
        with pytest.raises(StorageUnavailable, match=r"reset|Broken pipe"):
            store.store("a", bytes(8 << 20))


def test_an_answer_that_is_doubled_is_not_taken_for_that_to_the_next_call() -> None:
    with ftp_stub() as server, stub_store(server) as store:
        server.answers = {"DELE": "250 Deleted.\r\n250 Deleted."}
        store.delete("a")
        server.answers = {"DELE": "450 In use."}
        with pytest.raises(StorageUnavailable, match="In use"):
            store.delete("b")


def test_an_answer_that_is_doubled_is_not_taken_for_that_to_the_next_command() -> None:
    missing = "550 No such file."
    with ftp_stub() as server, stub_store(server) as store:
        server.answers = {"DELE": f"{missing}\r\n{missing}", "MLST": "250-Facts\r\n type=file;size=3; a\r\n250 End"}
        with pytest.raises(StorageUnavailable, match="more than it was asked"):
            store.delete("a")


def test_a_wrong_password(store: FtpStorage, home: Path) -> None:
    write_netrc(home, USER, "wrong-secret")
    with open_ftp(store.url) as other, pytest.raises(StorageRefused) as caught:
        other.store("a", DATA)
    assert ".netrc" in caught.value.hint
    assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_a_password_from_the_environment(store: FtpStorage, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / ".netrc").unlink()
    monkeypatch.setenv("BACKSTAY_FTP_PASSWORD", PASSWORD)
    with pytest.raises(InvalidRequest, match="BACKSTAY_FTP_PASSWORD"):
        open_backend(store.url)
    monkeypatch.setenv("BACKSTAY_FTP_USER", USER)
    with open_backend(store.url) as other:
        other.store("a", DATA)


def test_a_broken_netrc_is_told_without_its_secrets(store: FtpStorage, home: Path) -> None:
    (home / ".netrc").write_text("machine host login me pass-word secret\n")
    with pytest.raises(InvalidRequest) as caught:
        open_ftp(store.url)
    assert "secret" not in f"{caught.value} {caught.value.__cause__}"


def test_a_certificate_of_nobody_is_refused(secure: ServerProcess) -> None:
    with open_ftp(f"ftps://127.0.0.1:{secure.port}/x") as store, pytest.raises(StorageRefused) as caught:
        store.store("a", DATA)
    assert "SSL_CERT_FILE" in caught.value.hint


def test_a_certificate_of_nobody_on_a_data_connection_is_refused_and_gets_nothing(
    secure: ServerProcess, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(make_certificates(tmp_path).server)
    got: list[bytes] = []

    def listen(listener: socket.socket) -> None:
        with suppress(OSError):  # until it is closed, or refused
            got.append(context.wrap_socket(listener.accept()[0], server_side=True).recv(100))

    url = f"ftps://{USER}@127.0.0.1:{secure.port}/~/{tmp_path.name}"
    with open_ftp(url) as store, socket.create_server(("127.0.0.1", 0)) as listener:
        store.store("a", DATA)
        monkeypatch.setattr(Ftp, "makepasv", lambda _: listener.getsockname())
        threading.Thread(target=listen, args=(listener,), daemon=True).start()
        with pytest.raises(StorageRefused, match="cannot be trusted") as caught:
            list(store.list())
    assert "issuer" in caught.value.cause
    assert not any(got)


def test_a_server_without_tls_gets_no_password(plain: tuple[ServerProcess, Path]) -> None:
    with open_ftp(f"ftps://127.0.0.1:{plain[0].port}/x") as store, pytest.raises(StorageRefused, match="no TLS"):
        store.store("a", DATA)


@pytest.mark.parametrize("url", ["ftp://me:hidden@host/x", "ftps://host", "ftp://host/%0d%0aDELE", "ftp:///x"])
def test_addresses_that_make_no_sense(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        open_backend(url)
    assert "hidden" not in f"{caught.value} {caught.value.hint}"


# --- connections ---


def test_a_connection_that_was_dropped_is_opened_again(plain: tuple[ServerProcess, Path], tmp_path: Path) -> None:
    with (
        CuttingProxy(plain[0].port) as proxy,
        open_ftp(f"ftp://127.0.0.1:{proxy.port}/{tmp_path.name}") as store,
    ):
        store.store("a", DATA)
        proxy.drop()
        assert store.retrieve("a") == DATA
        assert proxy.connections == 2
    with open_ftp(f"ftp://127.0.0.1:{free_port()}/x") as store, pytest.raises(StorageUnavailable):
        store.retrieve("a")


@pytest.mark.parametrize("call", ["store", "retrieve"])
def test_a_server_that_is_killed_in_a_transfer(call: str, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    server = pyftpdlib_server(files).start()
    large = bytes(24 << 20)
    failures: list[BackstayError] = []
    try:
        with open_ftp(f"ftp://127.0.0.1:{server.port}/r") as store:
            store.store("a", DATA)
            (files / "r/large").write_bytes(large)

            def transfer() -> None:
                try:
                    store.store(NAME, large) if call == "store" else store.retrieve("large")
                except BackstayError as error:
                    failures.append(error)

            worker = threading.Thread(target=transfer)
            worker.start()
            if call == "store":
                wait_until(lambda: any(path.stat().st_size for path in files.rglob(".tmp-*")))
            else:
                worker.join(0.3)  # the server sends 2 MiB a second
            server.kill()
            worker.join()
            assert [type(error) for error in failures] == [StorageUnavailable]
            server.start()
            assert sorted(info.name for info in store.list()) == ["a", "large"]
            assert store.retrieve("large", start=5, length=7) == bytes(7)
            store.store(NAME, DATA)
    finally:
        server.stop()
