"""The fault proxy does what it says, in front of a small server."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

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

LARGE = bytes(range(256)) * 1024


class Store(ThreadingHTTPServer):
    """Keeps what is PUT, in memory; GETs of `/chunked` come in chunks."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Broken connections are what this is about."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.objects[self.path] = data
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        data = self.server.objects[self.path]
        self.send_response(200)
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for at in range(0, len(data), 1000):
                piece = data[at : at + 1000]
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.objects[self.path])))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's word
        """Nothing."""


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as server:
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def proxy(store: Store) -> Iterator[FaultProxy]:
    with FaultProxy(("127.0.0.1", store.server_address[1])) as made:
        yield made


def connect(proxy: FaultProxy, timeout: float = 5) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=timeout)


def ask(
    proxy: FaultProxy, method: str, path: str = "/a", body: bytes | None = None, timeout: float = 5
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = connect(proxy, timeout)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def test_without_faults_everything_passes(proxy: FaultProxy, store: Store) -> None:
    assert ask(proxy, "PUT", body=LARGE)[0].status == 201
    assert ask(proxy, "GET")[1] == LARGE
    assert (proxy.connections, proxy.hits) == (2, {})


@pytest.mark.parametrize("after", [0, 1, 65_536])
def test_an_upload_is_reset(proxy: FaultProxy, store: Store, after: int) -> None:
    proxy.add(ResetUpload(after=after))
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        ask(proxy, "PUT", body=LARGE * 20)
    assert store.objects == {}
    assert ask(proxy, "PUT", body=LARGE)[0].status == 201
    assert proxy.hits == {"ResetUpload": 1}


def test_a_download_is_reset(proxy: FaultProxy, store: Store) -> None:
    store.objects["/a"] = LARGE * 20
    proxy.add(ResetDownload(after=65_536))
    with pytest.raises((ConnectionError, http.client.IncompleteRead)):
        ask(proxy, "GET")


def test_a_download_ends_too_early(proxy: FaultProxy, store: Store) -> None:
    store.objects["/a"] = LARGE
    proxy.add(CutDownload(after=65_536))
    with pytest.raises(http.client.IncompleteRead) as caught:
        ask(proxy, "GET")
    assert 60_000 < len(caught.value.partial) < 65_536


def test_a_black_hole_never_answers(proxy: FaultProxy, store: Store) -> None:
    proxy.add(BlackHole(seconds=60))
    with pytest.raises(TimeoutError):
        ask(proxy, "PUT", body=b"x", timeout=0.2)
    assert store.objects == {}


def test_a_black_hole_ends(proxy: FaultProxy) -> None:
    proxy.add(BlackHole(seconds=0.1))
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        ask(proxy, "PUT", body=b"x")


def test_bytes_drip(proxy: FaultProxy, store: Store) -> None:
    store.objects["/a"] = bytes(1000)
    proxy.add(Drip(step=100, pause=0.02))
    begun = time.monotonic()
    assert ask(proxy, "GET")[1] == bytes(1000)
    assert time.monotonic() - begun > 0.2


@pytest.mark.parametrize("status", [429, 500, 503])
def test_the_first_requests_are_refused(proxy: FaultProxy, store: Store, status: int) -> None:
    proxy.add(Refuse(status=status, retry_after=7), count=2)
    connection = connect(proxy)
    found = []
    for _ in range(3):
        connection.request("PUT", "/a", LARGE)
        answer = connection.getresponse()
        answer.read()
        found.append((answer.status, answer.headers["Retry-After"]))
    connection.close()
    assert found == [(status, "7"), (status, "7"), (201, None)]
    assert store.objects == {"/a": LARGE}
    assert proxy.hits == {"Refuse": 2}


def test_an_answer_is_lost_after_the_server_did_its_work(proxy: FaultProxy, store: Store) -> None:
    proxy.add(LoseAnswer(method=b"PUT"))
    store.objects["/b"] = b"b"
    assert ask(proxy, "GET", "/b")[1] == b"b"
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        ask(proxy, "PUT", body=LARGE)
    assert store.objects["/a"] == LARGE


def test_faults_are_for_requests_that_match(store: Store) -> None:
    store.objects |= {"/a": b"a", "/b": b"b"}
    with FaultProxy(("127.0.0.1", store.server_address[1]), match=lambda head: b"/b " in head) as proxy:
        proxy.add(Refuse(status=500))
        assert ask(proxy, "GET", "/a")[1] == b"a"
        assert ask(proxy, "GET", "/b")[0].status == 500
        assert proxy.requests == [b"GET /a HTTP/1.1", b"GET /b HTTP/1.1"]


@pytest.mark.parametrize("fault", [ResetUpload(after=0), Refuse(status=503)], ids=lambda fault: type(fault).__name__)
def test_connection_and_request_faults_follow_each_other(proxy: FaultProxy, store: Store, fault: Fault) -> None:
    proxy.add(Refuse(status=500))
    proxy.add(fault)
    assert ask(proxy, "PUT", body=b"x")[0].status == 500
    if isinstance(fault, Refuse):
        assert ask(proxy, "PUT", body=b"x")[0].status == 503
    else:
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            ask(proxy, "PUT", body=b"x")
    assert ask(proxy, "PUT", body=b"x")[0].status == 201


def test_messages_of_every_form_pass_while_requests_are_looked_at(store: Store) -> None:
    store.objects |= {"/chunked": LARGE, "/empty": b""}
    with FaultProxy(("127.0.0.1", store.server_address[1]), match=lambda head: not head) as proxy:
        proxy.add(Refuse(status=500))
        connection = connect(proxy)
        for method, path, expected in (
            ("GET", "/chunked", LARGE),
            ("GET", "/empty", b""),
            ("HEAD", "/chunked", b""),
            ("GET", "/chunked", LARGE),
        ):
            connection.request(method, path)
            assert connection.getresponse().read() == expected
        connection.close()


def test_with_one_request_each_answer_ends_its_connection(store: Store) -> None:
    store.objects["/a"] = b"a"
    with FaultProxy(("127.0.0.1", store.server_address[1]), one_request=True) as proxy:
        proxy.add(Refuse(status=500))
        assert [ask(proxy, "GET")[0].status for _ in range(3)] == [500, 200, 200]
        assert proxy.connections == 3


def test_open_connections_can_be_cut(proxy: FaultProxy, store: Store) -> None:
    store.objects["/a"] = b"a"
    connection = connect(proxy)
    connection.request("GET", "/a")
    assert connection.getresponse().read() == b"a"
    proxy.cut()
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        ask_again(connection)
    connection.close()


def ask_again(connection: http.client.HTTPConnection) -> None:
    for _ in range(3):  # what comes before the proxy's thread has woken up still passes
        connection.request("GET", "/a")
        connection.getresponse().read()
