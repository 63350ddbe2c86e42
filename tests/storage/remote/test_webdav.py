"""The store on a WebDAV server: two real servers, and what servers and proxies answer at their worst."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from backstay.errors import (
    BackstayError,
    InsufficientSpace,
    InvalidRequest,
    ObjectNotFound,
    StorageMissing,
    StorageRefused,
    StorageUnavailable,
)
from backstay.storage.backend import Capabilities, StorageBackend
from backstay.storage.http_client import Answer, HttpClient
from backstay.storage.probing import probe_capabilities
from backstay.storage.registry import open_backend
from backstay.storage.transfer import temporary_name
from backstay.storage.webdav import WebdavStorage, open_webdav
from backstay.storage.webdav_listing import read_listing
from backstay.storage.webdav_locks import WebdavLocks
from backstay.storage.webdav_tree import UPLOADS
from backstay.testing import FakeClock, StorageConformance
from tests.ports import free_port
from tests.storage.remote.certificates import Certificates
from tests.storage.remote.conftest import write_netrc
from tests.storage.remote.http_stub import HttpStub, Reply, served
from tests.storage.remote.processes import ServerProcess, script, wait_until
from tests.storage.remote.proxy import CuttingProxy
from tests.storage.remote.reached import reached

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
            yield reached(store)


class TestRcloneServerWithTls(StorageConformance):
    @pytest.fixture
    def backend(
        self, secure: ServerProcess, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[StorageBackend]:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
        with open_webdav(f"webdavs://127.0.0.1:{secure.port}/{tmp_path.name}") as store:
            yield reached(store)


class TestWsgidavServer(StorageConformance):
    @pytest.fixture
    def backend(self, wsgidav: ServerProcess, tmp_path: Path) -> Iterator[StorageBackend]:
        with open_webdav(f"webdav://{USER}@127.0.0.1:{wsgidav.port}/{tmp_path.name}") as store:
            yield reached(store)


def test_locks_decide_races(rclone: ServerProcess, wsgidav: ServerProcess, tmp_path: Path) -> None:
    for server in (rclone, wsgidav):
        with open_webdav(f"webdav://127.0.0.1:{server.port}/{tmp_path.name}") as store:
            assert probe_capabilities(store) == Capabilities(atomic_replace=False)


def test_servers_renew_the_lock_of_a_writer_that_was_away(
    rclone: ServerProcess, wsgidav: ServerProcess, tmp_path: Path
) -> None:
    for server in (rclone, wsgidav):
        with open_webdav(f"webdav://127.0.0.1:{server.port}/{tmp_path.name}") as store:
            store.store("a", DATA)
            clock = FakeClock()
            with WebdavLocks(store._http, clock).held(f"/{tmp_path.name}/claim", "cannot store a") as check:
                clock.advance(60)
                check()


# --- real servers, and what happens to them ---


@pytest.fixture
def store(rclone: ServerProcess, tmp_path: Path) -> Iterator[WebdavStorage]:
    with open_webdav(f"webdav://127.0.0.1:{rclone.port}/{tmp_path.name}") as backend:
        yield backend


def calls(store: StorageBackend, name: str = "gone") -> list[Callable[[], object]]:
    return [
        lambda: store.retrieve(name),
        lambda: store.stat(name),
        lambda: store.exists(name),
        lambda: store.delete(name),
        lambda: [*store.list()],
        lambda: [*store.list("packs/ab/")],
    ]


def test_a_root_that_is_not_there_is_missing(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    server = rclone_server(files, "--dir-cache-time=1ms").start()
    try:
        with open_webdav(f"webdav://127.0.0.1:{server.port}/made/repository") as store:
            for call in calls(store):
                with pytest.raises(StorageMissing):
                    call()
            store.store(NAME, DATA)
            with pytest.raises(ObjectNotFound):
                store.retrieve("gone")
            (files / "made").rename(files / "away")
            _wait_until_forgotten(store)
            for call in calls(store):
                with pytest.raises(StorageMissing):
                    call()
            with pytest.raises(StorageMissing):
                store.store("packs/cd/a", DATA)
            assert not (files / "made").exists()
    finally:
        server.stop()


def _wait_until_forgotten(store: StorageBackend) -> None:
    """rclone keeps what it saw of directories for a moment."""
    for _ in range(3000):
        try:
            list(store.list())
        except StorageMissing:
            return
        time.sleep(0.01)


def test_a_server_that_is_killed_while_storing(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    server = rclone_server(files).start()
    failures: list[BackstayError] = []

    def put(into: StorageBackend) -> None:
        try:
            into.store(NAME, os.urandom(1) * (256 << 20))
        except BackstayError as error:
            failures.append(error)

    try:
        with open_webdav(f"webdav://127.0.0.1:{server.port}/r") as store:
            store.store("a", DATA)
            writer = threading.Thread(target=put, args=(store,))
            writer.start()
            wait_until(lambda: any(path.stat().st_size for path in files.rglob(".tmp-*") if path.is_file()))
            server.kill()
            writer.join()
            assert [type(error) for error in failures] == [StorageUnavailable]
            server.start()
            assert [info.name for info in store.list()] == ["a"]
            with pytest.raises(ObjectNotFound):
                store.retrieve(NAME)
            store.store(NAME, DATA)
            assert store.sweep_temporaries(0) == 1
            assert store.retrieve(NAME) == DATA
    finally:
        server.stop()


def test_connections_that_break(rclone: ServerProcess, tmp_path: Path) -> None:
    large = os.urandom(4 << 20)
    with (
        CuttingProxy(rclone.port) as proxy,
        open_webdav(f"webdav://127.0.0.1:{proxy.port}/{tmp_path.name}") as store,
    ):
        store.store("a", large)
        proxy.drop()
        assert store.retrieve("a") == large, "a dead connection is replaced before anything is sent"
        proxy.cut_down = len(large) // 2
        with pytest.raises(StorageUnavailable):
            store.retrieve("a")
        proxy.cut_up = len(large) // 2
        with pytest.raises(StorageUnavailable):
            store.store("b", large)
        assert proxy.cuts == 2
        assert [info.name for info in store.list()] == ["a"]
        store.store("b", large)
        assert store.retrieve("b", start=7, length=9) == large[7:16]


def test_a_wrong_password(rclone: ServerProcess, wsgidav: ServerProcess, home: Path) -> None:
    write_netrc(home, USER, "wrong-secret")
    for server in (rclone, wsgidav):
        with open_webdav(f"webdav://127.0.0.1:{server.port}/x") as store, pytest.raises(StorageRefused) as caught:
            store.store("a", DATA)
        assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_a_certificate_of_nobody_is_refused(secure: ServerProcess) -> None:
    with open_webdav(f"webdavs://127.0.0.1:{secure.port}/x") as store, pytest.raises(StorageRefused) as caught:
        store.store("a", DATA)
    assert "SSL_CERT_FILE" in caught.value.hint


@pytest.mark.parametrize("url", ["webdav://a:hidden@host/x", "webdavs://host", "webdav://host/x?y", "webdav:///x"])
def test_addresses_that_make_no_sense(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        open_backend(url)
    assert "hidden" not in f"{caught.value} {caught.value.hint}"


# --- a server of which one answer is another ---

PAGE = Answer(200, {"Content-Type": "text/html"}, b"<html>Please log in</html>")


@pytest.fixture
def astray(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives the next request of a method another answer; `done` says whether the server does it all the same."""
    real = HttpClient.request
    waiting: dict[str, tuple[Answer, bool]] = {}

    def request(self: HttpClient, method: str, target: str, **more: Any) -> Answer:
        if method not in waiting:
            return real(self, method, target, **more)
        answer, done = waiting.pop(method)
        if done:
            real(self, method, target, **more)
        return answer

    def give(method: str, answer: Answer, *, done: bool = False) -> None:
        waiting[method] = (answer, done)

    monkeypatch.setattr(HttpClient, "request", request)
    return give


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_web_page_in_place_of_a_move_stores_nothing(
    store: WebdavStorage, astray: Callable[..., None], overwrite: bool
) -> None:
    if overwrite:
        store.store(NAME, DATA[::-1])
    astray("MOVE", PAGE)
    with pytest.raises(StorageUnavailable, match="did not do what it was asked") as caught:
        store.store(NAME, DATA, overwrite=overwrite)
    assert "login page" in str(caught.value.hint)
    store.store(NAME, DATA, overwrite=overwrite)
    assert store.retrieve(NAME) == DATA


def test_a_web_page_in_place_of_a_deletion_deletes_nothing(store: WebdavStorage, astray: Callable[..., None]) -> None:
    store.store(NAME, DATA)
    astray("DELETE", PAGE)
    with pytest.raises(StorageUnavailable, match="did not do what it was asked"):
        store.delete(NAME)
    assert store.retrieve(NAME) == DATA


def test_a_web_page_in_place_of_a_deletion_is_not_counted_as_cleaned_up(
    store: WebdavStorage, astray: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backstay.storage.sweeping.store_time", lambda _: 1 << 62)  # else its probe went astray
    store._upload(f"{UPLOADS}/{temporary_name()}", DATA, "a writer that dies after this")
    astray("DELETE", PAGE)
    assert store.sweep_temporaries(0) == 0
    assert store.sweep_temporaries(0) == 1


@pytest.mark.parametrize("part", [{}, {"start": 3, "length": 4}], ids=["whole", "part"])
def test_a_web_page_in_place_of_an_object_is_not_its_bytes(
    store: WebdavStorage, astray: Callable[..., None], part: dict[str, int]
) -> None:
    store.store(NAME, DATA)
    astray("GET", Answer(200, {"Content-Type": "text/html", "Content-Length": str(len(PAGE.body))}, PAGE.body))
    with pytest.raises(StorageUnavailable, match="cannot read"):
        store.retrieve(NAME, **part)
    astray("GET", Answer(200, {"Content-Type": "text/html", "Content-Length": str(len(DATA))}, DATA))
    assert store.retrieve(NAME, **part) in (DATA, DATA[3:7]), "a server may take it for a page"


@pytest.mark.parametrize("answer", [Answer(200, {}, b""), Answer(200, {"Content-Type": "text/html"}, b"done")])
def test_a_server_that_does_what_it_is_asked_and_answers_with_200_is_believed(
    store: WebdavStorage, astray: Callable[..., None], answer: Answer
) -> None:
    store.store(f"{NAME}-beside", DATA)  # so that the collection is there
    astray("MOVE", answer, done=True)
    store.store(NAME, DATA)
    assert store.retrieve(NAME) == DATA
    astray("DELETE", answer, done=True)
    store.delete(NAME)
    assert not store.exists(NAME)


# --- answers at their worst ---


@contextmanager
def answering(reply: Callable[[str, str, dict[str, str]], Reply]) -> Iterator[WebdavStorage]:
    with served(HttpStub(reply)) as stub, open_webdav(f"webdav://127.0.0.1:{stub.port}/r") as store:
        yield store


def listing(*resources: str) -> bytes:
    return f'<?xml version="1.0"?><d:multistatus xmlns:d="DAV:">{"".join(resources)}</d:multistatus>'.encode()


def resource(path: str, *, size: int | None = None, status: str = "200 OK") -> str:
    kind = "<d:resourcetype/>" if size is not None else "<d:resourcetype><d:collection/></d:resourcetype>"
    length = f"<d:getcontentlength>{size}</d:getcontentlength>" if size is not None else ""
    return (
        f"<d:response><d:href>{path}</d:href><d:propstat><d:prop>{kind}{length}</d:prop>"
        f"<d:status>HTTP/1.1 {status}</d:status></d:propstat></d:response>"
    )


ROOT = resource("/r/")
BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "lol"><!ENTITY b "&a;&a;">]>'
    b'<d:multistatus xmlns:d="DAV:">&b;</d:multistatus>'
)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>Please log in</html>"),
        (207, b"<html>Please log in</html>"),
        (207, b""),
        (207, listing()),
        (207, listing(ROOT)[:-20]),
        (207, listing(ROOT) + b"Internal Server Error"),
        (207, listing(resource("/elsewhere/"))),
        (207, listing(ROOT, resource("/r/deep/er", size=1))),
        (207, listing(resource("/r/a", size=1))),
        (207, listing(ROOT, resource("/r/a", size=1, status="403 Forbidden"))),
        (207, listing(ROOT, "<d:response><d:href>/r/a</d:href><d:status>HTTP/1.1 500 No</d:status></d:response>")),
        (207, BOMB),
        (301, b""),
        (401, b""),
        (500, b"oops"),
        (503, b"later"),
    ],
)
def test_no_bad_answer_looks_like_an_empty_store(status: int, body: bytes) -> None:
    with answering(lambda *_: (status, {}, body)) as store, pytest.raises(StorageUnavailable):
        [*store.list()]


def test_a_good_answer_is_read() -> None:
    body = listing(ROOT, resource("/r/a", size=5), resource("http://other.name/r/b%2Dc", size=6))
    with answering(lambda *_: (207, {}, body)) as store:
        assert {info.name: info.size for info in store.list()} == {"a": 5, "b-c": 6}


def test_deep_answers_are_refused() -> None:
    with pytest.raises(StorageUnavailable):
        read_listing(b'<multistatus xmlns="DAV:">' + b"<x>" * 100_000)


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        (200, {}, b"0123456789", b"3456"),  # ranges are not known here
        (206, {"Content-Range": "bytes 3-6/10"}, b"3456", b"3456"),
        (206, {"Content-Range": "bytes 0-3/10"}, b"0123", None),
        (206, {"Content-Range": "bytes 3-6/10"}, b"345", None),
        (206, {"Content-Range": "bytes 3-6/10", "Content-Length": "4"}, b"34", None),  # and then it hangs up
        (200, {"Content-Encoding": "gzip"}, b"0123456789", None),
        (200, {"Content-Type": "text/html"}, b"<html>an error page</html>", None),
    ],
)
def test_ranges_are_exact_or_an_error(
    status: int, headers: dict[str, str], body: bytes, expected: bytes | None
) -> None:
    def reply(method: str, path: str, asked: dict[str, str]) -> Reply:
        return (status, headers, body) if method == "GET" else (500, {}, b"")

    with answering(reply) as store:
        if expected is not None:
            assert store.retrieve("a", start=3, length=4) == expected
        else:
            with pytest.raises(StorageUnavailable):
                store.retrieve("a", start=3, length=4)


@pytest.mark.parametrize(
    ("status", "error"),
    [(507, InsufficientSpace), (403, StorageRefused), (413, StorageRefused), (429, StorageUnavailable)],
)
def test_what_an_upload_may_be_told(status: int, error: type[BackstayError]) -> None:
    def reply(method: str, path: str, headers: dict[str, str]) -> Reply:
        return (status, {"Retry-After": "7"}, b"") if method == "PUT" else (201, {}, b"")

    with answering(reply) as store, pytest.raises(error) as caught:
        store.store("a", DATA)
    if status == 429:
        assert isinstance(caught.value, StorageUnavailable)
        assert caught.value.retry_after == 7


def test_locks_that_everybody_gets_are_none() -> None:
    def reply(method: str, path: str, headers: dict[str, str]) -> Reply:
        return (200, {"Lock-Token": "<urn:x>"}, b"") if method == "LOCK" else (201, {}, b"")

    with answering(reply) as store:
        assert not store.capabilities.atomic_create
