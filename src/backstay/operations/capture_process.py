"""Captures entries in a process of its own, so that reading files does not wait for this one's interpreter lock.

Requests and answers lie in shared memory, in slots; a socket says which slot is meant and carries the descriptors of
the directories. The process answers in order, and ends when the socket does, however that came about.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from errno import EIO
from itertools import accumulate, groupby
from typing import Final, NamedTuple

import msgspec

from backstay.codec.chunker import CdcSizes, ContentDefinedChunker
from backstay.codec.digest import ChunkIds
from backstay.core.clock import SystemClock
from backstay.operations.cutting import Chunks, cut_whole
from backstay.repository.nodes import Node
from backstay.sources.entry_reader import EntryReader
from backstay.sources.metadata import Owners, Volume
from backstay.sources.source import Directory, Lent, Stat

BODY: Final = 512 << 10  # bytes of a slot for the request, then for the answer
ANSWER: Final = BODY  # bytes of an answer at most
SLOTS: Final = 4  # requests under way
MAX_DIRECTORIES: Final = 250  # descriptors in a request; the kernel takes 253
_MESSAGE: Final = struct.Struct("=II")  # slot, bytes of its body
_START: Final = "import sys; sys.path[:] = sys.argv[3:]; from backstay.operations.capture_process import main; main()"


class Settings(msgspec.Struct, array_like=True):
    """What the process needs to know of the repository; sent over the socket, because it holds keys."""

    id_key: bytes
    sizes: CdcSizes
    chunker_secret: int
    small: int  # bytes; files above are left to the asker
    room: int  # bytes of a slot for data


class Wanted(msgspec.Struct, array_like=True):
    """Entries of the directory whose descriptor comes in the same place."""

    path: bytes
    entries: list[Stat]


class Captured(msgspec.Struct, array_like=True):
    """One entry; with `node` None it could not be read (`errno`), or (0) is left to the asker."""

    stat: Stat | None = None
    node: Node | None = None
    chunks: list[tuple[bytes, int]] | None = None  # (id, length) in order; None for what has no data
    start: int = 0  # of the data, from the start of the slot's room for it
    errno: int = 0
    message: str = ""

    @property
    def is_left(self) -> bool:
        return self.node is None and not self.errno

    def pieces(self, data: memoryview) -> Chunks | None:
        """The chunks, as parts of the room for data."""
        if self.chunks is None:
            return None
        ends = accumulate((length for _, length in self.chunks), initial=self.start)
        return [(chunk, data[at : at + length]) for (chunk, length), at in zip(self.chunks, ends, strict=False)]


class Answer(msgspec.Struct, array_like=True):
    """The entries in the order in which they were asked for, and what else went wrong: (path, message)."""

    entries: list[Captured]
    problems: list[tuple[bytes, str]]


class ReaderGone(Exception):
    """The process ended; what it was asked for has to be done here."""


class Entry(NamedTuple):
    """What is to be captured."""

    directory: Directory
    stat: Stat


def is_supported() -> bool:
    """Whether this system has what it takes."""
    return bool(sys.executable) and hasattr(os, "memfd_create") and hasattr(socket, "SOCK_SEQPACKET")


class CaptureProcess:
    """The asking side. Not safe for several threads."""

    def __init__(self, settings: Settings) -> None:
        self._slot = BODY + settings.room
        memory = os.memfd_create("backstay-capture")
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            os.ftruncate(memory, SLOTS * self._slot)
            self._memory = mmap.mmap(memory, SLOTS * self._slot)
            self._process = _spawn(its, memory)
        except OSError as error:
            mine.close()
            raise ReaderGone(str(error)) from error
        finally:
            its.close()
            os.close(memory)
        self._socket = mine
        self._free = deque(range(SLOTS))
        self._asked: deque[int] = deque()
        self._answers = msgspec.msgpack.Decoder(Answer)
        self._ready = self._gone = False
        try:
            self._send(msgspec.msgpack.encode((self._slot, settings)))
        except ReaderGone:
            self.close()
            raise

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

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_gone(self) -> bool:
        """Whether the process has ended and was waited for."""
        return self._process.poll() is not None

    @property
    def has_room(self) -> bool:
        """Whether another request can be made before answers are let go."""
        return bool(self._free)

    def ask(self, entries: Sequence[Entry]) -> bool:
        """Request entries; false if there is nothing that this process can do for them. Raises ReaderGone."""
        if self._gone:
            raise ReaderGone("it did not start")
        fds: list[int] = []
        wanted: list[Wanted] = []
        for directory, group in groupby(entries, key=lambda entry: entry.directory):
            lent = directory.lend()
            if lent is None or len(fds) == MAX_DIRECTORIES:
                return False
            fds.append(lent.fd)
            wanted.append(Wanted(lent.path, [entry.stat for entry in group]))
        body = msgspec.msgpack.encode(wanted)
        if len(body) > BODY:
            return False
        slot = self._free.popleft()
        start = slot * self._slot
        self._memory[start : start + len(body)] = body
        self._asked.append(slot)
        self._send(_MESSAGE.pack(slot, len(body)), fds)
        return True

    @contextmanager
    def answer(self) -> Iterator[tuple[Answer, memoryview]]:
        """The answer to the oldest request, and the data, which is gone afterwards. Raises ReaderGone."""
        slot = self._asked[0]
        try:
            message = self._socket.recv(_MESSAGE.size)
        except OSError as error:
            raise ReaderGone(str(error)) from error
        if len(message) != _MESSAGE.size:
            raise ReaderGone("it ended")
        answered, length = _MESSAGE.unpack(message)
        if answered != slot or length > BODY:
            raise ReaderGone("it answered what was not asked")
        view = memoryview(self._memory)[slot * self._slot : (slot + 1) * self._slot]
        try:
            answer = self._answers.decode(view[:length])
        except msgspec.MsgspecError as error:
            raise ReaderGone(f"it answered nonsense: {error}") from error
        yield answer, view[BODY:]
        self._free.append(self._asked.popleft())

    def close(self) -> None:
        """Stop it, whatever it is at."""
        self._socket.close()
        self._process.kill()
        self._process.wait()
        with suppress(BufferError):  # a batch that is still held keeps the memory
            self._memory.close()

    def _send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        try:
            socket.send_fds(self._socket, [message], fds)
        except OSError as error:
            raise ReaderGone(str(error)) from error


def _spawn(its: socket.socket, memory: int) -> subprocess.Popen[bytes]:
    # Isolated, and the path handed on: nothing is imported from the directory that happens to be the current one.
    return subprocess.Popen(
        [sys.executable, "-I", "-c", _START, str(its.fileno()), str(memory), *filter(None, sys.path)],
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
    asker, memory = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    room, settings = msgspec.msgpack.decode(asker.recv(1 << 16), type=tuple[int, Settings])
    with suppress(BrokenPipeError, ConnectionResetError):
        asker.send(b"r")
        _Answering(settings, mmap.mmap(memory, SLOTS * room), room).serve(asker)


class _Answering:
    """Reads, hashes and cuts what is asked for."""

    def __init__(self, settings: Settings, memory: mmap.mmap, slot: int) -> None:
        self._settings, self._memory, self._slot = settings, memoryview(memory), slot
        self._ids = ChunkIds(settings.id_key)
        self._chunker = ContentDefinedChunker(settings.sizes, settings.chunker_secret)
        self._owners, self._clock = Owners(), SystemClock()
        self._volumes: dict[int, Volume] = {}
        self._requests = msgspec.msgpack.Decoder(list[Wanted])
        self._problems: list[tuple[bytes, str]] = []

    def serve(self, asker: socket.socket) -> None:
        while True:
            message, fds, _, _ = socket.recv_fds(asker, _MESSAGE.size, MAX_DIRECTORIES)
            if not message:
                return
            slot, length = _MESSAGE.unpack(message)
            view = self._memory[slot * self._slot : (slot + 1) * self._slot]
            try:
                answer = self._answer(self._requests.decode(view[:length]), fds, view[BODY:])
            finally:
                for fd in fds:
                    os.close(fd)
            body = msgspec.msgpack.encode(answer)
            if len(body) > ANSWER:  # very many or large attributes: all of it is left to the asker
                body = msgspec.msgpack.encode(Answer([], []))
            view[: len(body)] = body
            asker.send(_MESSAGE.pack(slot, len(body)))

    def _answer(self, wanted: list[Wanted], fds: list[int], room: memoryview) -> Answer:
        self._problems = []
        entries: list[Captured] = []
        used = 0
        for directory, fd in zip(wanted, fds, strict=True):
            reader = self._reader(Lent(fd, directory.path))
            for stat in directory.entries:
                captured, length = self._capture(reader, stat, room, used)
                entries.append(captured)
                used += length
        return Answer(entries, self._problems)

    def _reader(self, lent: Lent) -> EntryReader:
        device = os.fstat(lent.fd).st_dev
        if device not in self._volumes:
            self._volumes[device] = Volume.of(lent.fd, device)
        return EntryReader(
            lent.fd,
            lent.path,
            volume=self._volumes[device],
            owners=self._owners,
            clock=self._clock,
            problem=lambda path, message: self._problems.append((path, message)),
        )

    def _capture(self, reader: EntryReader, stat: Stat, room: memoryview, used: int) -> tuple[Captured, int]:
        """One entry, and how many bytes of the room its data takes."""
        try:
            capture = reader.capture(stat, small=self._settings.small)
        except OSError as error:
            return Captured(errno=error.errno or EIO, message=error.strerror or str(error)), 0
        data = capture.data
        if capture.stream is not None:
            capture.stream.abandon()
            return Captured(), 0
        if data is None:
            return Captured(capture.stat, capture.node), 0
        end = used + len(data)
        if end > len(room):
            return Captured(), 0
        room[used:end] = data
        capture.node.sha256, chunks = cut_whole(data, self._ids, self._chunker)
        cuts = [(chunk, len(piece)) for chunk, piece in chunks]
        return Captured(capture.stat, capture.node, cuts, used), len(data)
