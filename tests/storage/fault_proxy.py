"""A TCP proxy in front of a real server that does to connections what networks and servers do.

    with FaultProxy(("127.0.0.1", port)) as proxy:
        proxy.add(ResetUpload(after=65536), count=1)
        ...  # talk to proxy.port

Faults are taken in the order in which they were added, one for each connection or, where they say so, for each
request; when none is left, everything passes. Clients keep connections open, so that one connection may carry many
requests: `proxy.cut()` ends those that are open, and with `one_request=True` every answer ends its connection.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, TypeAlias

_PIECE: Final = 16 << 10
_LINGER_NOT: Final = struct.pack("ii", 1, 0)  # closing sends a reset
_HEAD_END: Final = b"\r\n\r\n"
_MAX_HEAD: Final = 256 << 10
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED: Final = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CONTINUE: Final = re.compile(rb"\r\nexpect: *100-continue", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetUpload:
    """The connection is reset after so many bytes from the client."""

    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ResetDownload:
    """The connection is reset after so many bytes from the server."""

    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CutDownload:
    """The answer ends after so many bytes as if it were whole: the connection is closed, not reset."""

    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlackHole:
    """Bytes are taken for `seconds` and nothing comes back; then the connection is reset."""

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Drip:
    """Both directions pass `step` bytes every `pause` seconds."""

    step: int
    pause: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """HTTP: the proxy answers itself, after the whole request was taken; the server sees nothing of it."""

    status: int
    retry_after: float | None = None
    body: bytes = b"<html><body>try again later</body></html>"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoseAnswer:
    """HTTP: the server gets the request and carries it out; its answer is dropped and the connection reset.

    `method` limits this to requests of one kind, such as b"PUT"; others pass.
    """

    method: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoseReply:
    """Protocols of lines: the server gets the command and carries it out; its reply is dropped, the connection reset.

    `command` is how the line begins, such as b"RNTO".
    """

    command: bytes


Fault: TypeAlias = ResetUpload | ResetDownload | CutDownload | BlackHole | Drip | Refuse | LoseAnswer | LoseReply
_OfRequests: TypeAlias = Refuse | LoseAnswer


class _Closed(Exception):
    """The other side has gone."""


class FaultProxy:
    """Listens on a free port of 127.0.0.1 while it is entered. `hits` counts, by class name, what was done.

    `struck` counts the connections that a fault really ended: one that was to be reset after more bytes than it
    carried was not. `match` chooses the requests that HTTP faults apply to, by their head; connection faults apply to
    all. `port` is where to listen, for protocols whose servers choose it.
    """

    def __init__(
        self,
        upstream: tuple[str, int],
        *,
        one_request: bool = False,
        match: Callable[[bytes], bool] = bool,
        timeout_s: float = 30.0,
        port: int = 0,
    ) -> None:
        self.upstream = upstream
        self.match = match
        self.hits: Counter[str] = Counter()
        self.struck = 0
        self.connections = 0
        self.requests: list[bytes] = []  # first lines, where requests were looked at
        self._one_request = one_request
        self._timeout_s = timeout_s
        self._faults: list[Fault] = []
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.port: int = self._listener.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, fault: Fault, *, count: int = 1) -> None:
        """Let this happen to the next `count` connections (or requests) that no earlier fault takes."""
        with self._lock:
            self._faults += [fault] * count

    def heal(self) -> None:
        """No more faults."""
        with self._lock:
            self._faults.clear()

    def cut(self) -> None:
        """Reset every connection that is open."""
        with self._lock:
            sockets = list(self._open)
        for each in sockets:
            _reset(each)

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in list(self._threads):
            thread.join(self._timeout_s)

    # --- connections ---

    def _start(self, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name="fault-proxy", daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(lambda client=client: self._serve(client))  # type: ignore[misc]

    def _serve(self, client: socket.socket) -> None:
        server: socket.socket | None = None
        try:
            client.settimeout(self._timeout_s)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._keep(client)
            fault = self._take_for_connection()
            if isinstance(fault, BlackHole):
                self._swallow(client, fault.seconds)
                return
            server = socket.create_connection(self.upstream, self._timeout_s)
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._keep(server)
            if fault is None and (self._expects_requests() or self._one_request):
                self._pass_requests(client, server)
            else:
                self._pass_bytes(client, server, fault)
        except (OSError, _Closed):
            _reset(client)
        finally:
            for each in (client, server):
                if each is not None:
                    self._drop(each)

    def _keep(self, each: socket.socket) -> None:
        with self._lock:
            self._open.add(each)

    def _drop(self, each: socket.socket) -> None:
        with self._lock:
            self._open.discard(each)
        each.close()

    def _take_for_connection(self) -> Fault | None:
        with self._lock:
            if not self._faults or isinstance(self._faults[0], _OfRequests):
                return None
            fault = self._faults.pop(0)
        self.hits[type(fault).__name__] += 1
        return fault

    def _expects_requests(self) -> bool:
        with self._lock:
            return bool(self._faults) and isinstance(self._faults[0], _OfRequests)

    def _swallow(self, client: socket.socket, seconds: float) -> None:
        until = time.monotonic() + seconds
        client.settimeout(0.05)
        while time.monotonic() < until and not self._stopping.is_set():
            try:
                if not client.recv(_PIECE):
                    break
            except TimeoutError:
                continue
        _reset(client)

    # --- bytes ---

    def _pass_bytes(self, client: socket.socket, server: socket.socket, fault: Fault | None) -> None:
        """Both directions, each on a thread, until one ends or the fault strikes."""
        struck = threading.Event()
        up = self._start(lambda: self._pump(client, server, fault, struck, upload=True))
        self._pump(server, client, fault, struck, upload=False)
        up.join(self._timeout_s)

    def _pump(
        self,
        source: socket.socket,
        target: socket.socket,
        fault: Fault | None,
        struck: threading.Event,
        *,
        upload: bool,
    ) -> None:
        command = fault.command if upload and isinstance(fault, LoseReply) else None
        limit = fault.after if isinstance(fault, ResetUpload if upload else (ResetDownload, CutDownload)) else None
        passed = 0
        try:
            while True:
                size = fault.step if isinstance(fault, Drip) else _PIECE
                data = source.recv(size if limit is None else min(size, limit - passed) or 1)
                if not data:
                    break
                if limit is not None and passed >= limit:
                    struck.set()
                    self._strike(source, target, fault)
                    return
                if command is not None and data.startswith(command):
                    struck.set()  # the next that comes back is the reply to it
                elif not upload and struck.is_set() and isinstance(fault, LoseReply):
                    self._strike(source, target, fault)
                    return
                target.sendall(data)
                passed += len(data)
                if isinstance(fault, Drip):
                    self._stopping.wait(fault.pause)
                if limit is not None and passed >= limit:
                    struck.set()
                    self._strike(source, target, fault)
                    return
            if not struck.is_set():  # else the end of the connection is to be a reset
                target.shutdown(socket.SHUT_WR)
        except OSError:
            _reset(source)
            _reset(target)

    def _strike(self, source: socket.socket, target: socket.socket, fault: Fault | None) -> None:
        self.struck += 1
        if isinstance(fault, CutDownload):
            with suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)
            _reset(source)
            return
        _reset(source)
        _reset(target)

    # --- requests ---

    def _pass_requests(self, client: socket.socket, server: socket.socket) -> None:
        """One HTTP request after the other, each with the fault that is due."""
        rest, back = b"", b""
        while not self._stopping.is_set():
            head, rest = _read_head(client, rest)
            self.requests.append(head.partition(b"\r\n")[0])
            fault = self._take_for_request(head)
            if _CONTINUE.search(head):
                head = _CONTINUE.sub(b"", head)
                client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            if isinstance(fault, Refuse):
                rest = _pass_body(client, None, head, rest)
                client.sendall(_refusal(fault))
            else:
                server.sendall(head)
                rest = _pass_body(client, server, head, rest)
                answer, back = _read_head(server, back)
                if isinstance(fault, LoseAnswer):
                    _pass_body(server, None, answer, back, method=head)
                    _reset(client)
                    return
                client.sendall(answer)
                back = _pass_body(server, client, answer, back, method=head)
            if self._one_request:
                client.shutdown(socket.SHUT_WR)
                return

    def _take_for_request(self, head: bytes) -> Fault | None:
        with self._lock:
            if not self._faults or not isinstance(self._faults[0], _OfRequests) or not self.match(head):
                return None
            first = self._faults[0]
            if isinstance(first, LoseAnswer) and not head.startswith(first.method):
                return None
            self._faults.pop(0)
        self.hits[type(first).__name__] += 1
        return first


def _refusal(fault: Refuse) -> bytes:
    lines = [f"HTTP/1.1 {fault.status} Refused", f"Content-Length: {len(fault.body)}", "Content-Type: text/html"]
    if fault.retry_after is not None:
        lines.append(f"Retry-After: {fault.retry_after:g}")
    return "\r\n".join(lines).encode() + _HEAD_END + fault.body


def _receive(source: socket.socket) -> bytes:
    data = source.recv(_PIECE)
    if not data:
        raise _Closed
    return data


def _read_head(source: socket.socket, rest: bytes) -> tuple[bytes, bytes]:
    """A message's head with its empty line, and what came behind it; interim answers are left out."""
    while True:
        while _HEAD_END not in rest:
            if len(rest) > _MAX_HEAD:
                raise _Closed
            rest += _receive(source)
        head, _, rest = rest.partition(_HEAD_END)
        if not head.startswith(b"HTTP/1.1 1"):
            return head + _HEAD_END, rest


def _pass_body(
    source: socket.socket, target: socket.socket | None, head: bytes, rest: bytes, *, method: bytes = b""
) -> bytes:
    """Send a message's body on, or drop it when there is no target; what came behind it."""
    if _has_no_body(head, method):
        return rest
    if _CHUNKED.search(head):
        return _pass_chunks(source, target, rest)
    length = _LENGTH.search(head)
    if length is None:
        if head.startswith(b"HTTP/"):
            _pass_to_end(source, target, rest)
        return rest
    left = int(length[1])
    while True:
        if target is not None and rest[:left]:
            target.sendall(rest[:left])
        if len(rest) >= left:
            return rest[left:]
        left -= len(rest)
        rest = _receive(source)


def _has_no_body(head: bytes, method: bytes) -> bool:
    return head.startswith(b"HTTP/") and (method.startswith(b"HEAD ") or head.split(b" ", 2)[1] in (b"204", b"304"))


def _pass_chunks(source: socket.socket, target: socket.socket | None, rest: bytes) -> bytes:
    """A chunked body without trailers, byte for byte."""
    while True:
        while b"\r\n" not in rest:
            rest += _receive(source)
        line, _, behind = rest.partition(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        whole = len(line) + 2 + size + 2
        while len(rest) < whole:
            rest += _receive(source)
        if target is not None:
            target.sendall(rest[:whole])
        rest = rest[whole:]
        del behind
        if size == 0:
            return rest


def _pass_to_end(source: socket.socket, target: socket.socket | None, rest: bytes) -> None:
    """A body that ends with its connection."""
    while rest:
        if target is not None:
            target.sendall(rest)
        rest = source.recv(_PIECE)
    raise _Closed


def _reset(each: socket.socket) -> None:
    """End a connection so that the other side gets an error, and a thread that waits for it wakes up."""
    with suppress(OSError):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    with suppress(OSError):
        each.shutdown(socket.SHUT_RD)
