"""A process of this program's own that answers requests in order, so that two interpreters work at once.

Requests, answers and the data that belongs to them lie in shared memory, in slots; a socket says which slot is meant
and carries open files. The helper ends when the socket does, however that came about.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from backstay.core.clock import SystemClock
from backstay.core.pipeline import read_ahead

Prepared = TypeVar("Prepared")


class Handler(Protocol[Prepared]):
    """What answers requests in a process; neither step may raise anything."""

    def prepare(self, request: memoryview, files: list[int]) -> Prepared:
        """Decode a request and read what it needs, on a thread of its own, while the one before is answered."""
        ...

    def answer(self, prepared: Prepared, files: list[int], room: memoryview) -> bytes:
        """The answer, of at most ANSWER bytes; the files are closed afterwards, `room` is for data."""
        ...


BODY: Final = 512 << 10  # bytes of a slot for the request, then for the answer
ANSWER: Final = BODY  # bytes of an answer at most
SLOTS: Final = 4  # requests under way, if not said otherwise
MAX_FILES: Final = 250  # open files that come with a request; the kernel takes 253
_MESSAGE: Final = struct.Struct("=II")  # slot, bytes of the request or answer
_START: Final = "import sys; sys.path[:] = sys.argv[6:]; from backstay.core.helper_process import main; main()"
_SETTINGS: Final = 64 << 10  # bytes at most
_CLOCK: Final = SystemClock()
_CROWDED_S: Final = 10.0  # for open files that are under way to arrive


class HelperGone(Exception):
    """The process ended; what it was asked for has to be done by others."""


def is_supported() -> bool:
    """Whether this system has what it takes."""
    return bool(sys.executable) and hasattr(os, "memfd_create") and hasattr(socket, "SOCK_SEQPACKET")


class HelperProcess:
    """The asking side; not for several threads."""

    def __init__(self, place: str, settings: bytes, *, room: int, slots: int = SLOTS) -> None:
        """Start `module:function`, which makes a Handler from the settings. Raises HelperGone.

        `room` for data is in bytes, of each of as many slots as requests can be under way. The settings may hold keys:
        they go through the socket.
        """
        self._slot = BODY + room
        memory = os.memfd_create("backstay-helper")
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            os.ftruncate(memory, slots * self._slot)
            self._memory = mmap.mmap(memory, slots * self._slot)
            self._process = _spawn(place, its, memory, self._slot, slots)
        except OSError as error:
            mine.close()
            raise HelperGone(str(error)) from error
        finally:
            its.close()
            os.close(memory)
        self._socket = mine
        self._free = deque(range(slots))
        self._asked: deque[int] = deque()
        self._ready = self._gone = False
        try:
            self._send(settings)
        except HelperGone:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_ready(self) -> bool:
        """Whether it has started up, or never will; until then others are faster."""
        if not self._ready:
            self._socket.setblocking(False)
            try:
                self._ready = bool(self._socket.recv(1)) or self._give_up()
            except BlockingIOError:
                return False
            except OSError:
                self._ready = self._give_up()
            finally:
                self._socket.setblocking(True)
        return True

    def _give_up(self) -> bool:
        self._gone = True  # told by `ask`, whose caller has nothing under way elsewhere
        return True

    def is_gone(self) -> bool:
        """Whether the process has ended and was waited for."""
        return self._process.poll() is not None

    @property
    def has_room(self) -> bool:
        """Whether another request can be made before an answer is taken."""
        return bool(self._free)

    def ask(
        self, request: bytes, files: Sequence[int] = (), data: Iterable[bytes | bytearray | memoryview] = ()
    ) -> None:
        """Make a request of at most BODY bytes, with its data; there must be room. Raises HelperGone."""
        if self._gone:
            raise HelperGone("it did not start")
        slot = self._free.popleft()
        start = slot * self._slot
        self._memory[start : start + len(request)] = request
        at = start + BODY
        for part in data:
            self._memory[at : at + len(part)] = part
            at += len(part)
        self._asked.append(slot)
        self._send(_MESSAGE.pack(slot, len(request)), files)

    @contextmanager
    def answer(self) -> Iterator[tuple[memoryview, memoryview]]:
        """The answer to the oldest request, and the room for data; both are gone afterwards. Raises HelperGone."""
        slot = self._asked[0]
        try:
            self._ready = self._ready or bool(self._socket.recv(1))
            message = self._socket.recv(_MESSAGE.size)
        except OSError as error:
            raise HelperGone(str(error)) from error
        if len(message) != _MESSAGE.size:
            raise HelperGone("it ended")
        answered, length = _MESSAGE.unpack(message)
        if answered != slot or length > BODY:
            raise HelperGone("it answered what was not asked")
        view = memoryview(self._memory)[slot * self._slot : (slot + 1) * self._slot]
        yield view[:length], view[BODY:]
        self._free.append(self._asked.popleft())

    def close(self, *, patience_s: float = 0) -> None:
        """Stop it, whatever it is at, after waiting so long for it to finish by itself."""
        self._socket.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(patience_s)
        self._process.kill()
        self._process.wait()
        with suppress(BufferError):  # what is still held keeps the memory
            self._memory.close()

    def _send(self, message: bytes, files: Sequence[int] = ()) -> None:
        until = _CLOCK.monotonic() + _CROWDED_S
        while True:
            try:
                socket.send_fds(self._socket, [message], files)
                return
            except OSError as error:
                # A user may have no more open files under way than one process may have open (unix(7)).
                if error.errno != errno.ETOOMANYREFS or _CLOCK.monotonic() > until:
                    raise HelperGone(str(error)) from error
            _CLOCK.sleep(0.001)  # it takes some of them off the socket, whether or not its answers are taken


def _spawn(place: str, its: socket.socket, memory: int, slot: int, slots: int) -> subprocess.Popen[bytes]:
    # Isolated, and the path handed on: nothing is imported from the directory that happens to be the current one.
    facts = (place, str(its.fileno()), str(memory), str(slot), str(slots))
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _START, *facts, *filter(None, sys.path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(its.fileno(), memory),
        start_new_session=True,  # a key pressed at the terminal is for the asker alone
    )


# -- the process


def main() -> None:
    """Answer requests until the asker is gone."""
    from backstay.core.memory import tune_for_large_buffers

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tune_for_large_buffers()
    place, slot = sys.argv[1], int(sys.argv[4])
    asker = socket.socket(fileno=int(sys.argv[2]))
    memory = mmap.mmap(int(sys.argv[3]), slot * int(sys.argv[5]))
    module, _, function = place.partition(":")
    with suppress(BrokenPipeError, ConnectionResetError):
        handler: Handler[Any] = getattr(import_module(module), function)(asker.recv(_SETTINGS))
        asker.send(b"r")
        for request in read_ahead(_requests(asker, memoryview(memory), slot, handler), depth=1):
            _answer(asker, handler, request)


class _Request(NamedTuple, Generic[Prepared]):
    slot: int
    view: memoryview
    files: list[int]
    prepared: Prepared


def _requests(
    asker: socket.socket, memory: memoryview, size: int, handler: Handler[Prepared]
) -> Iterator[_Request[Prepared]]:
    while True:
        message, files, _, _ = socket.recv_fds(asker, _MESSAGE.size, MAX_FILES)
        if not message:
            return
        slot, length = _MESSAGE.unpack(message)
        view = memory[slot * size : (slot + 1) * size]
        yield _Request(slot, view, files, handler.prepare(view[:length], files))


def _answer(asker: socket.socket, handler: Handler[Prepared], request: _Request[Prepared]) -> None:
    try:
        answer = handler.answer(request.prepared, request.files, request.view[BODY:])
    finally:
        for file in request.files:
            os.close(file)
    request.view[: len(answer)] = answer
    asker.send(_MESSAGE.pack(request.slot, len(answer)))
