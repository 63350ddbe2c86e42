"""A server that answers, but so slowly that it would take months: the clock says so, nobody waits."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backstay.errors import StorageUnavailable
from backstay.storage.address import parse_address
from backstay.storage.backend import StorageBackend
from backstay.storage.ftp import FtpStorage
from backstay.storage.ipfs import IpfsStorage
from backstay.storage.logins import Login
from backstay.storage.paced_sockets import Pace, pace_socket, paced
from backstay.storage.patience import REMOTE, Patience
from backstay.storage.webdav import WebdavStorage
from backstay.testing import FakeClock
from tests.storage.fault_proxy import Drip, FaultProxy
from tests.storage.remote.engines import PASSWORD, ftp, rclone_webdav
from tests.storage.remote.sftp_server import USER

STEP_S = 10.0  # between two bytes
PROMISED = 32 << 10  # bytes per second


@contextmanager
def dripping(answer: bytes, clock: FakeClock) -> Iterator[tuple[int, list[int]]]:
    """The port of a server that sends its answer byte by byte, ten seconds each; and how many it has sent."""
    sent: list[int] = []

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if answer.startswith(b"HTTP"):
                connection.recv(65536)
            try:
                for at in range(len(answer)):
                    connection.sendall(answer[at : at + 1])
                    sent.append(at)
                    clock.advance(STEP_S)
                    time.sleep(0.002)
            except OSError:  # it was hung up
                return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1], sent
        finally:
            thread.join()


BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n" + bytes(90_000)
HEAD = b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: nothing\r\n" % number for number in range(90))
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 10_000


def webdav(port: int, clock: FakeClock) -> StorageBackend:
    return WebdavStorage(parse_address(f"webdav://127.0.0.1:{port}/x", credentials=""), clock=clock)


def ipfs(port: int, clock: FakeClock) -> StorageBackend:
    return IpfsStorage(parse_address(f"ipfs://127.0.0.1:{port}/x", credentials=""), clock=clock)


def greeted(port: int, clock: FakeClock) -> StorageBackend:
    return FtpStorage(parse_address(f"ftp://127.0.0.1:{port}/x", credentials=""), clock=clock)


@pytest.mark.parametrize(
    ("opened", "answer"),
    [
        (webdav, BODY),
        (webdav, HEAD),
        (webdav, CHUNKS),
        (ipfs, BODY),
        (greeted, b"220-" + b"welcome\r\n" * 1000),
    ],
)
def test_an_answer_that_drips_is_given_up(opened: Callable[[int, FakeClock], StorageBackend], answer: bytes) -> None:
    clock = FakeClock()
    with (
        dripping(answer, clock) as (port, sent),
        opened(port, clock) as store,
        pytest.raises(StorageUnavailable, match=r"slower than 32|timed out"),
    ):
        store.retrieve("a")
    assert REMOTE.silence / STEP_S <= len(sent) < len(answer) / 4


@pytest.mark.parametrize("upload", [False, True])
def test_a_transfer_of_ftp_that_drips_is_given_up(tmp_path: Path, home: Path, upload: bool) -> None:
    patience = Patience(connect=5, silence=0.5, slowest=1 << 30)
    clock = FakeClock()

    def real_time() -> None:
        while not over.wait(0.01):
            clock.advance(0.01)

    over = threading.Event()
    thread = threading.Thread(target=real_time)
    with ftp(tmp_path) as engine, engine.behind() as (control, data):
        direct = engine.open(engine.host, engine.port, "x", REMOTE, clock)
        direct.store("a", bytes(300_000))
        address = parse_address(f"ftp://127.0.0.1:{control.port}/x", credentials="")
        store = FtpStorage(address, Login(USER, PASSWORD), clock=clock, patience=patience)
        data.add(Drip(step=64, pause=0.05), count=1)
        thread.start()
        try:
            with pytest.raises(StorageUnavailable):
                store.store("b", bytes(300_000)) if upload else store.retrieve("a")
        finally:
            over.set()
            thread.join()
        assert [info.name for info in direct.list()] == ["a"]
        direct.close()
        store.close()


def test_an_upload_may_take_its_time(tmp_path: Path, home: Path) -> None:
    """Longer than a connection may take to come about: once that was the limit for all of a body."""
    patience = Patience(connect=0.3, silence=5, slowest=PROMISED)
    body = bytes(12 << 20)  # more than the buffers of two connections hold
    with rclone_webdav(tmp_path) as engine, FaultProxy((engine.host, engine.port)) as proxy:
        address = parse_address(f"webdav://127.0.0.1:{proxy.port}/x", credentials="")
        with WebdavStorage(address, Login(USER, PASSWORD), patience=patience) as store:
            store.store(
                "warm", b"x"
            )  # makes the directories, so that the body is the first that a new connection sends
        with WebdavStorage(address, Login(USER, PASSWORD), patience=patience) as store:
            proxy.add(Drip(step=64 << 10, pause=0.005), count=5)
            begun = time.monotonic()
            store.store("large", body)
            assert time.monotonic() - begun > 2 * patience.connect
            assert store.stat("large").size == len(body)


def test_what_has_moved_gives_time() -> None:
    clock = FakeClock()
    pace = Pace(Patience(silence=100, slowest=1000), clock)
    assert pace.wait() == 100
    clock.advance(60)
    assert pace.wait() == 40
    pace.moved(50_000)
    assert pace.wait() == 90
    pace.moved(1 << 30)
    assert pace.wait() == 100, "nobody may be silent for longer"
    clock.advance(1e9)
    with pytest.raises(TimeoutError, match="slower than 1000 B per second"):
        pace.wait()
    pace.begin()
    assert pace.wait() == 100


def test_a_socket_outside_of_an_exchange_is_like_any_other() -> None:
    ours, theirs = socket.socketpair()
    with pace_socket(ours) as mine, theirs:
        mine.settimeout(7)
        theirs.sendall(b"abc")
        assert mine.recv(2) == b"ab"
        assert mine.gettimeout() == 7
        with paced(Patience(silence=50, slowest=1), FakeClock()):
            buffer = bytearray(4)
            assert (mine.recv_into(buffer), bytes(buffer[:1])) == (1, b"c")
            assert mine.gettimeout() == 50
            mine.sendall(memoryview(bytes(8)).cast("Q"))
        assert theirs.recv(100) == bytes(8)
