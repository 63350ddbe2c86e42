"""Sockets that end an exchange which goes on, but too slowly ever to end.

The timeout of a socket begins anew with every byte, so that a server which sends one a minute is waited for for months.
Libraries that block (ftplib, urllib3) have no other. Here every wait is as long as the `Pace` of the exchange allows.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from backstay.core.clock import Clock
from backstay.core.quantities import format_size
from backstay.storage.patience import Patience

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class Pace:
    """One exchange, a question and its answer: `silence` seconds, and more for every byte that moves either way.

    The sizes of answers are not known before, and need not be: whoever has moved n bytes may have used the time that a
    transfer of n bytes may take.
    """

    def __init__(self, patience: Patience, clock: Clock) -> None:
        self._patience, self._clock = patience, clock
        self.begin()

    def begin(self) -> None:
        """Another exchange."""
        self._begun, self._moved = self._clock.monotonic(), 0

    def moved(self, size: int) -> None:
        self._moved += size

    def wait(self) -> float:
        """Seconds that the next bytes may take. TimeoutError when the exchange is behind its time."""
        passed = self._clock.monotonic() - self._begun
        left = self._patience.for_transfer(self._moved) - passed
        if left <= 0:
            raise TimeoutError(f"it is slower than {format_size(self._patience.slowest)} per second")
        return min(left, self._patience.silence)


_PACE: Final[ContextVar[Pace | None]] = ContextVar("pace", default=None)


@contextmanager
def paced(patience: Patience, clock: Clock) -> Iterator[None]:
    """What this thread's sockets do meanwhile is one exchange, unless `begin_exchange` says that there are several."""
    token = _PACE.set(Pace(patience, clock))
    try:
        yield
    finally:
        _PACE.reset(token)


def begin_exchange() -> None:
    """Another one, within the same `paced`."""
    if (pace := _PACE.get()) is not None:
        pace.begin()


class _Paced(socket.socket):
    """Outside of `paced` like any other socket."""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        pace = self._next_wait()
        data = super().recv(buflen, flags)
        if pace is not None:
            pace.moved(len(data))
        return data

    def recv_into(self, buffer: WriteableBuffer, nbytes: int | None = None, flags: int = 0) -> int:
        pace = self._next_wait()
        size = super().recv_into(buffer, flags=flags) if nbytes is None else super().recv_into(buffer, nbytes, flags)
        if pace is not None:
            pace.moved(size)
        return size

    def send(self, data: ReadableBuffer, flags: int = 0) -> int:
        pace = self._next_wait()
        size = super().send(data, flags)
        if pace is not None:
            pace.moved(size)
        return size

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """By pieces: the timeout of the original is one for all of them."""
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[self.send(rest, flags) :]

    def _next_wait(self) -> Pace | None:
        pace = _PACE.get()
        if pace is not None:
            self.settimeout(pace.wait())
        return pace


class PacedSocket(_Paced):
    """A plain connection."""


class PacedTlsSocket(_Paced, ssl.SSLSocket):
    """A connection with TLS; contexts make them (`sslsocket_class`)."""


def pace_socket(plain: socket.socket) -> PacedSocket:
    """The same connection; the socket that was given is an empty shell afterwards."""
    timeout = plain.gettimeout()
    made = PacedSocket(plain.family, plain.type, plain.proto, fileno=plain.detach())
    made.settimeout(timeout)
    return made
