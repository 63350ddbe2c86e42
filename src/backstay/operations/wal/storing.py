"""WAL that was received on its way into the repository: cut into pieces, and stored one after the other by a thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from backstay.core.bell import Bell
from backstay.core.clock import Clock
from backstay.core.events import EventSink, Progress, Warned
from backstay.core.quantities import plural
from backstay.errors import (
    BackstayError,
    CorruptedBackup,
    InsufficientSpace,
    SourceRefused,
    StorageUnavailable,
    WalConflict,
)
from backstay.repository.repository import Repository
from backstay.repository.wal.store import StoredFile
from backstay.sources.postgres.lsn import PAGE, format_lsn, segment_name
from backstay.sources.postgres.wal_records import Commit, last_commit

WAITING_SEGMENTS: Final = 3  # besides the one that is being filled
LONGEST_PAUSE_S: Final = 30.0
PROGRESS_EVERY_S: Final = 0.2
FORGOTTEN_AT_ONCE: Final = 4  # parts, or more where that takes no longer


@dataclass(frozen=True, slots=True)
class Piece:
    """A whole segment, or a part of one from its byte `start` on; its last byte lies before position `end`.

    `before` is what stands before it on the same page of the WAL.
    """

    file: str
    start: int
    data: bytes
    is_whole: bool
    end: int
    before: bytes = b""

    def last_commit(self) -> Commit | None:
        """The last commit that ends in it."""
        commit = last_commit(self.before + self.data)
        return commit if commit is not None and commit.end > self.end - len(self.data) else None


class Segment:
    """The segment that is being filled. `known` is what is stored of its beginning."""

    def __init__(self, timeline: int, start: int, size: int, known: bytes) -> None:
        self.file = segment_name(timeline, start, size)
        self.timeline, self.start, self._size = timeline, start, size
        self._data = bytearray()
        self._known, self._cut = known, len(known)

    @property
    def position(self) -> int:
        """Where the next byte belongs."""
        return self.start + len(self._data)

    def fill(self, data: bytes) -> bytes:
        """Take what fits; what does not belongs to the next segment. Raises WalConflict."""
        before = len(self._data)
        self._data += data[: self._size - before]
        known = self._known[before : len(self._data)]
        if self._data[before : before + len(known)] != known:
            raise WalConflict(
                f"{self.file} is stored with other bytes than the server sends",
                cause="a part of it came before, and was another one",
            )
        return data[self._size - before :]

    def is_full(self) -> bool:
        return len(self._data) == self._size

    def whole(self) -> Piece:
        return Piece(self.file, 0, bytes(self._data), True, self.start + self._size)

    def part(self) -> Piece | None:
        """What came since the last part was cut, if anything did."""
        start, end = self._cut, len(self._data)
        if end <= start:
            return None
        self._cut = end
        before = bytes(self._data[start - start % PAGE : start])
        return Piece(self.file, start, bytes(self._data[start:]), False, self.start + end, before)


class Assembler:
    """Makes pieces of a stream that begins at the start of a segment."""

    def __init__(self, timeline: int, start: int, size: int, known: bytes = b"") -> None:
        self._size = size
        self._segment = Segment(timeline, start, size, known)

    @property
    def position(self) -> int:
        return self._segment.position

    def add(self, lsn: int, data: bytes) -> Iterator[Piece]:
        """The segments that these bytes complete. Raises SourceRefused, WalConflict."""
        if lsn != self.position:
            raise SourceRefused(
                "the server sends other WAL than was expected",
                cause=f"it sends position {format_lsn(lsn)}, and {format_lsn(self.position)} comes next",
            )
        while data:
            data = self._segment.fill(data)
            if self._segment.is_full():
                yield self._segment.whole()
                self._segment = Segment(self._segment.timeline, self.position, self._size, b"")

    def cut(self) -> Piece | None:
        """A part of the segment that is not complete, if something came since the last one."""
        return self._segment.part()


class Storing:
    """Stores pieces in their order, on a thread; what cannot be stored now is tried until it can.

    Order: a whole segment is durable before its parts are forgotten, so that a crash leaves both, and the next
    receiver forgets them. `durable` moves when a piece is stored; only then may the server forget it. `bell` rings
    when it has moved, or nothing more will be stored.
    """

    def __init__(
        self,
        repository: Repository,
        system: int,
        events: EventSink,
        *,
        parts: dict[str, list[tuple[int, int]]],
        noticed: Callable[[Piece], None],
        what: str = "WAL",
    ) -> None:
        """`noticed` is told of each piece that is durable; `what` is stored here, for messages."""
        self._what = what
        self._repository, self._system, self._events = repository, system, events
        self._clock: Clock = repository.clock
        self._parts = parts
        self._own: dict[str, set[tuple[int, int]]] = {}  # of these, what came in the same stream as their segments
        self._noticed = noticed
        self._waiting: deque[Piece] = deque()
        self._superseded: deque[tuple[str, tuple[int, int]]] = deque()  # parts of segments that are whole
        self._changed = threading.Condition()
        self._is_closing = False
        self._failure: BaseException | None = None
        self._told_at = self._clock.monotonic()
        self.bell = Bell()
        self.durable = 0
        self.segments = 0
        self.bytes = 0
        self._thread = threading.Thread(target=self._run, name="wal", daemon=True)
        self._thread.start()

    def offer(self, piece: Piece) -> None:
        """Take a piece; look at `has_room` before receiving more. A whole segment replaces parts that wait."""
        with self._changed:
            if piece.is_whole:
                kept = [other for other in list(self._waiting)[1:] if other.is_whole or other.file != piece.file]
                self._waiting = deque([*list(self._waiting)[:1], *kept])  # the first one is being stored
            self._waiting.append(piece)
            self._changed.notify_all()

    @property
    def has_room(self) -> bool:
        return sum(piece.is_whole for piece in self._waiting) < WAITING_SEGMENTS

    @property
    def is_idle(self) -> bool:
        return not self._waiting

    def wait(self, seconds: float) -> None:
        """Until something was stored, at most so long."""
        with self._changed:
            self._changed.wait(seconds)

    def check(self) -> None:
        """Raise what cannot be mended by trying again: WalConflict, StorageUnfit and their kin."""
        if self._failure is not None:
            raise self._failure

    def restart_at(self, lsn: int) -> None:
        """Begin to count from a position up to which all is stored."""
        self.durable = lsn

    def close(self) -> None:
        """Give up what is not stored."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(timeout=1)  # one that hangs in a store ends with the process
        if not self._thread.is_alive():
            self.bell.close()

    def _run(self) -> None:
        try:
            while self._has_more():
                if self._waiting:
                    self._store_next()
                self._forget_some(max(FORGOTTEN_AT_ONCE, self._repository.wal.forgets_at_once))
            self._forget_some(len(self._superseded))
        except BaseException as error:  # noqa: BLE001 - handed to the receiving thread, which raises it
            with self._changed:
                self._failure = error
                self._changed.notify_all()
            self.bell.ring()

    def _has_more(self) -> bool:
        """Wait for something to do; false at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._superseded or self._is_closing)
            return not self._is_closing

    def _store_next(self) -> None:
        piece = self._waiting[0]  # it stays there until it is stored: then all is idle
        self._store_patiently(piece)
        with self._changed:
            self._waiting.popleft()
            self.durable = piece.end
            self._changed.notify_all()
        self.bell.ring()
        self._tell_progress(piece)
        self._noticed(piece)

    def _forget_some(self, parts: int) -> None:
        """Few at a time: commits may wait for what is stored next."""
        while parts > 0 and self._superseded:
            file = self._superseded[0][0]
            taken = [part for other, part in islice(self._superseded, parts) if other == file]
            for _ in taken:
                self._superseded.popleft()
            parts -= len(taken)
            if not forget_parts(self._repository, self._system, file, taken, self._events):
                self._superseded = deque(other for other in self._superseded if other[0] != file)
                return

    def _tell_progress(self, piece: Piece) -> None:
        now = self._clock.monotonic()
        if now - self._told_at >= PROGRESS_EVERY_S:
            self._told_at = now
            self._events(Progress(files=self.segments, bytes=self.bytes, current=piece.file))

    def _store_patiently(self, piece: Piece) -> None:
        pause, told = 1.0, False
        while True:
            try:
                self._store(piece)
            except (StorageUnavailable, InsufficientSpace) as error:
                if not told:
                    self._tell(f"{piece.file} cannot be stored ({error}); the server keeps it, and it is tried again")
                told = True
                with self._changed:
                    if self._changed.wait_for(lambda: self._is_closing, pause):
                        raise
                pause = min(2 * pause, LONGEST_PAUSE_S)
                continue
            if told:
                self._tell(f"{piece.file} is stored; {self._what} comes in again")
            return

    def _store(self, piece: Piece) -> None:
        self._repository.keyring.begin_epoch_if_due(self._clock)  # a receiver may run for years
        wal = self._repository.wal
        if not piece.is_whole:
            wal.store_part(self._system, piece.file, piece.start, piece.data)
            part = piece.start, piece.start + len(piece.data)
            self._parts.setdefault(piece.file, []).append(part)
            self._own.setdefault(piece.file, set()).add(part)
        else:
            own = self._own.get(piece.file, set())
            others = [part for part in wal.find(self._system, piece.file).parts if part not in own]
            wal.store(self._system, piece.file, piece.data, parts=others)
            self._own.pop(piece.file, None)
            self.segments += 1
            self._superseded.extend((piece.file, part) for part in self._parts.pop(piece.file, []))
        self.bytes += len(piece.data)

    def _tell(self, message: str) -> None:
        self._events(Warned(message=message))


def forget_parts(
    repository: Repository, system: int, file: str, parts: list[tuple[int, int]], events: EventSink
) -> bool:
    """Remove parts of a segment that is whole; where the store does not let us (false), they stay and do no harm."""
    try:
        repository.wal.forget_parts(system, file, StoredFile(parts=parts))
    except StorageUnavailable as error:
        events(Warned(message=f"parts of {file} stay, though it is whole ({error})"))
        return False
    return True


def forget_superseded(repository: Repository, system: int, events: EventSink) -> dict[str, list[tuple[int, int]]]:
    """Remove parts whose segment is whole, which a receiver left that was stopped in between; the parts of others."""
    parts: dict[str, list[tuple[int, int]]] = {}
    for file, found in repository.wal.files(system).items():
        if found.parts and found.whole:
            _forget_equal(repository, system, file, found, events)
        elif found.parts:
            parts[file] = list(found.parts)
    return parts


def _forget_equal(repository: Repository, system: int, file: str, found: StoredFile, events: EventSink) -> None:
    """Parts that their whole segment contradicts stay: they may be all that is left of what was acknowledged."""
    wal = repository.wal
    try:
        data = wal.read(system, file, found)
    except CorruptedBackup as error:
        events(Warned(message=f"parts of {file} stay: it is damaged ({error})"))
        return
    others = wal.contradicting(system, file, data, found.parts)
    if others:
        events(Warned(message=f"{file} holds other bytes than {plural(len(others), 'part')} of it, which stay"))
    forget_parts(repository, system, file, [part for part in found.parts if part not in others], events)


def as_warning(error: BackstayError) -> Warned:
    """A failure that does not stop a receiver, on one line."""
    return Warned(message=f"{error.code}: {error}; {error.hint}")
