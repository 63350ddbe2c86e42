"""A small object store over HTTP behind the fault proxy and behind retries: nothing is lost, nothing is made up.

The engine here is for this test alone, and has one connection for each call, so that every fault meets every call. The
real engines and servers behind the same proxy are in `tests/storage/remote/test_fault_matrix.py`.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from backstay.core.clock import SystemClock
from backstay.errors import BackstayError, ObjectExists, ObjectNotFound, StorageUnavailable
from backstay.storage.backend import Buffer, ObjectInfo, StorageBackend
from backstay.storage.memory import MemoryStorage
from backstay.storage.names import check_name, check_prefix, check_range
from backstay.storage.retrying import Retrying, RetryPolicy
from backstay.testing import StorageConformance
from tests.storage.fault_proxy import (
    BlackHole,
    CutDownload,
    Drip,
    Fault,
    FaultProxy,
    LoseAnswer,
    Refuse,
    ResetDownload,
    ResetUpload,
)

DATA = bytes(range(256)) * 1024
PACK = f"packs/ab/{hashlib.sha256(DATA).hexdigest()}"
SNAPSHOT = "snapshots/01arz3ndektsv4rrffq69g5fav"


class Server(ThreadingHTTPServer):
    """Objects by PUT (with If-None-Match), GET (with Range), HEAD, DELETE; `/?prefix` lists."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.store = MemoryStorage()

    def handle_error(self, request: object, client_address: object) -> None:
        """Broken connections are what this is about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if len(data) < int(self.headers["Content-Length"]):
            return None  # half an object is none
        try:
            self.server.store.store(self.path[1:], data, overwrite="If-None-Match" not in self.headers)
        except ObjectExists:
            return self.answer(412)
        return self.answer(201)

    def do_GET(self) -> None:
        if self.path.startswith("/?"):
            found = [(i.name, i.size, i.modified_ns) for i in self.server.store.list(self.path[2:])]
            return self.answer(200, json.dumps(found).encode())
        try:
            data = self.server.store.retrieve(self.path[1:])
        except ObjectNotFound:
            return self.answer(404)
        start, _, end = self.headers.get("Range", "0-").partition("-")
        part = data[int(start) : int(end) if end else None]
        return self.answer(200, part, **{"X-Size": str(len(data))})

    def do_DELETE(self) -> None:
        self.server.store.delete(self.path[1:])
        self.answer(204)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's word
        """Nothing."""


class HttpStorage(StorageBackend):
    """A new connection for every call, and nothing is tried twice."""

    def __init__(self, port: int, timeout: float) -> None:
        self._port, self._timeout = port, timeout

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        check_name(name)
        status, _ = self._ask("PUT", name, bytes(data), {} if overwrite else {"If-None-Match": "*"})
        if status == 412:
            raise ObjectExists(name)

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        check_name(name)
        check_range(start, length)
        end = "" if length is None else str(start + length)
        status, data = self._ask("GET", name, None, {"Range": f"{start}-{end}"})
        if status == 404:
            raise ObjectNotFound(name)
        if (length is not None and len(data) != length) or (not data and start > self.stat(name).size):
            raise StorageUnavailable(f"{name} is too short")
        return data

    def delete(self, name: str) -> None:
        check_name(name)
        self._ask("DELETE", name, None, {})

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        _, data = self._ask("GET", f"?{prefix}", None, {})
        return (ObjectInfo(name=name, size=size, modified_ns=at) for name, size, at in json.loads(data))

    def stat(self, name: str) -> ObjectInfo:
        check_name(name)
        return super().stat(name)

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._timeout)
        try:
            connection.request(method, f"/{path}", body, headers)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise StorageUnavailable(f"{self.url} does not answer", cause=repr(error)) from error
        finally:
            connection.close()
        if answer.status in (429, 500, 503):
            asked = answer.headers["Retry-After"]
            raise StorageUnavailable(
                f"{self.url} refuses", cause=f"status {answer.status}", retry_after=float(asked) if asked else None
            )
        return answer.status, data


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=lambda: made.serve_forever(poll_interval=0.01))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def proxy(server: Server) -> Iterator[FaultProxy]:
    with FaultProxy(("127.0.0.1", server.server_address[1])) as made:
        yield made


class Waits:
    """Stands in for sleeping: waiting would only cost time, because faults are counted and not timed."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)


def over(proxy: FaultProxy, waits: Waits | None = None, timeout: float = 5) -> Retrying:
    engine = HttpStorage(proxy.port, timeout)
    return Retrying(engine, policy=RetryPolicy(deadline_s=60), clock=SystemClock(), sleep=waits or Waits())


class TestHttpStorage(StorageConformance):
    @pytest.fixture
    def backend(self, proxy: FaultProxy) -> StorageBackend:
        return over(proxy)


UPLOAD: list[Fault] = [
    *(ResetUpload(after=at) for at in range(0, len(DATA), 65_536)),
    ResetDownload(after=0),
    CutDownload(after=10),
    BlackHole(seconds=0.05),
    Drip(step=32_768, pause=0.001),
    Refuse(status=500),
    Refuse(status=503, retry_after=3),
    Refuse(status=429, retry_after=3),
    LoseAnswer(),
]
DOWNLOAD: list[Fault] = [
    *(ResetDownload(after=at) for at in range(0, len(DATA), 65_536)),
    *(CutDownload(after=at) for at in range(1, len(DATA), 65_536)),
    *UPLOAD[-6:],
]


@pytest.mark.parametrize("name", [PACK, SNAPSHOT])
@pytest.mark.parametrize("fault", UPLOAD, ids=str)
def test_a_store_gets_through(server: Server, proxy: FaultProxy, fault: Fault, name: str) -> None:
    proxy.add(fault, count=2)
    waits = Waits()
    over(proxy, waits).store(name, DATA)
    assert server.store.retrieve(name) == DATA
    if isinstance(fault, Refuse) and fault.retry_after:
        assert all(pause >= fault.retry_after for pause in waits.slept[:2])
    with pytest.raises(ObjectExists):
        over(proxy).store(name, DATA)


@pytest.mark.parametrize("fault", UPLOAD, ids=str)
def test_a_store_that_lost_a_race_stays_lost(server: Server, proxy: FaultProxy, fault: Fault) -> None:
    server.store.store(SNAPSHOT, b"the fence of a collector")
    proxy.add(fault, count=2)
    with pytest.raises(ObjectExists):
        over(proxy).store(SNAPSHOT, DATA)
    assert server.store.retrieve(SNAPSHOT) == b"the fence of a collector"


@pytest.mark.parametrize("fault", DOWNLOAD, ids=str)
def test_whole_objects_and_parts_come_through(server: Server, proxy: FaultProxy, fault: Fault) -> None:
    server.store.store(PACK, DATA)
    backend = over(proxy)
    proxy.add(fault, count=2)
    assert backend.retrieve(PACK) == DATA
    proxy.add(fault, count=2)
    assert backend.retrieve(PACK, start=1000, length=200_000) == DATA[1000:201_000]


@pytest.mark.parametrize("fault", DOWNLOAD, ids=str)
def test_a_listing_is_whole(server: Server, proxy: FaultProxy, fault: Fault) -> None:
    names = {f"packs/00/{number:064}" for number in range(3000)}
    for name in names:
        server.store.store(name, b"")
    proxy.add(fault, count=2)
    found = [info.name for info in over(proxy).list("packs/")]
    assert len(found) == len(names)
    assert set(found) == names


@pytest.mark.parametrize("fault", [fault for fault in UPLOAD if not isinstance(fault, Drip)], ids=str)
def test_what_lasts_longer_than_patience_is_told(server: Server, proxy: FaultProxy, fault: Fault) -> None:
    proxy.add(fault, count=20)
    engine = HttpStorage(proxy.port, 0.2)
    backend = Retrying(engine, policy=RetryPolicy(deadline_s=0), clock=SystemClock(), sleep=Waits())
    calls: list[Callable[[], object]] = [
        lambda: backend.store(PACK, DATA),
        lambda: backend.retrieve(PACK),
        lambda: list(backend.list("packs/")),
    ]
    told: list[str] = []
    for call in calls:
        try:
            call()
        except BackstayError as error:
            told.append(error.code)
    stored = server.store.exists(PACK)
    assert set(told) <= ({"StorageUnavailable"} if stored else {"StorageUnavailable", "ObjectNotFound"})
    assert told, "something failed"
    if stored:
        assert server.store.retrieve(PACK) == DATA
