"""Receive the WAL of a PostgreSQL cluster into the repository, until asked to stop.

Order: bytes become durable in the repository, then the server hears of it, then it may forget them. Whatever a crash
interrupts, the server's slot still has all that is not stored; the next receiver begins at the start of the first
segment that is not whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from backstay.codec.digest import sha256
from backstay.core.events import EventSink, Started, Warned, ignore
from backstay.errors import (
    BackstayError,
    InsufficientSpace,
    SlotInUse,
    SlotLost,
    SourceRefused,
    SourceUnreachable,
    StorageUnavailable,
    WalGap,
)
from backstay.operations.heartbeat import Heartbeat
from backstay.operations.pg_bases import base_backups
from backstay.operations.wal_coverage import WalCoverage
from backstay.operations.wal_start import Start, first_start, start_at
from backstay.operations.wal_storing import Assembler, Storing, as_warning, forget_superseded
from backstay.operations.wal_streaming import LOOK_S, STATUS_S, Stopped, Streaming
from backstay.repository.repository import Repository
from backstay.repository.wal import require_cluster
from backstay.sources.postgres.connection import Connection
from backstay.sources.postgres.lsn import format_lsn
from backstay.sources.postgres.receiver import (
    UNDEFINED_FILE,
    Slot,
    WalStream,
    read_slot,
    require_version,
    segment_size,
    sender_timeout,
)
from backstay.sources.postgres.timelines import Path, path_of
from backstay.storage.fitness import require_fit

LONGEST_PAUSE_S: Final = 30.0
IN_USE_S: Final = 10.0  # how long a receiver that was killed may still seem to be there
_NOT_IN_SLOTS: Final = re.compile(r"[^a-z0-9_]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveOptions:
    """Whose WAL to receive. What has come is stored every `every` seconds; `heartbeat` is in seconds, 0 for none."""

    url: str
    name: str
    every: float = 5.0
    heartbeat: float = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveResult:
    """What was stored until the receiver was stopped; `durable` is the position up to which all is stored."""

    name: str
    system: int
    slot: str
    segments: int
    bytes: int
    durable: int


def slot_name(name: str) -> str:
    """The slot of a name: slots have few letters, so that a digest tells apart what would be equal."""
    plain = _NOT_IN_SLOTS.sub("_", name.lower())
    if plain != name or len(plain) > 50:
        plain = f"{plain[:40]}_{sha256(name.encode()).hex()[:8]}"
    return f"backstay_{plain}"


def bind_name(repository: Repository, name: str, system: int, *, events: EventSink = ignore) -> None:
    """See that base backups and WAL of a name are those of one cluster. Raises IdentityMismatch, CorruptedBackup."""
    bound = repository.wal.bound(name)
    if bound is not None:
        require_cluster(name, bound, system)
        return

    def damaged(snapshot: str, error: BackstayError) -> None:
        events(Warned(message=f"{snapshot} was not looked at: {error}"))

    for base in base_backups(repository, name, on_damage=damaged):
        require_cluster(name, base.system, system)
    repository.wal.bind(name, system, repository.clock)


def run_receive(
    repository: Repository, options: ReceiveOptions, stopped: Stopped, *, events: EventSink = ignore
) -> ReceiveResult:
    """Receive until `stopped` says so. What is lost for good is told as a warning, and receiving goes on behind it.

    Raises SourceUnreachable when the server cannot be reached at first, SlotInUse, ReplicationDenied, WalLevelTooLow,
    IdentityMismatch, WalConflict, StorageUnfit.
    """
    # No lease is taken, even where writers need one: WAL lies under names that say which bytes belong there, a slot
    # lets one receiver in, and backups must go on beside it.
    require_fit(repository.backend)
    with WalStream(options.url, repository.clock) as stream:
        system = stream.system
    bind_name(repository, options.name, system, events=events)
    heart = Heartbeat(options.url, options.heartbeat, repository.clock, events)
    storing = Storing(
        repository, system, events, parts=forget_superseded(repository, system, events), noticed=heart.noticed
    )
    events(Started(operation="receive WAL"))
    try:
        if options.heartbeat > 0:
            heart.start()
        _Receiver(repository, options, system, storing, stopped, events).run()
    finally:
        heart.close()
        storing.close()
    return ReceiveResult(
        name=options.name,
        system=system,
        slot=slot_name(options.name),
        segments=storing.segments,
        bytes=storing.bytes,
        durable=storing.durable,
    )


class _Removed(Exception):
    """The server has not kept the WAL that was asked for first."""

    def __init__(self, error: SourceRefused) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass(slots=True)
class _Receiver:
    repository: Repository
    options: ReceiveOptions
    system: int
    storing: Storing
    stopped: Stopped
    events: EventSink
    has_begun: bool = False
    is_told: bool = False  # that something is away
    pause: float = 1.0
    report_every: float = STATUS_S

    def run(self) -> None:
        """Session after session, until asked to stop."""
        clock = self.repository.clock
        began = clock.monotonic()
        while not self.stopped():
            try:
                self._settle()
                self._session()
            except SlotInUse as error:
                if not self.has_begun and clock.monotonic() - began > IN_USE_S:
                    title = f"another receiver of {self.options.name} runs"
                    raise SlotInUse(title, cause=error.cause, state=error.state) from error
                self._rest(0.5)
            except (SourceUnreachable, StorageUnavailable, InsufficientSpace) as error:
                if not self.is_told:
                    self.events(Warned(message=f"{error}; it is tried again, and the server keeps its WAL meanwhile"))
                self.is_told = True
                self._rest(self.pause)
                self.pause = min(2 * self.pause, LONGEST_PAUSE_S)
            else:
                self._rest(LOOK_S)

    def _rest(self, seconds: float) -> None:
        clock = self.repository.clock
        until = clock.monotonic() + seconds
        while not self.stopped() and (left := until - clock.monotonic()) > 0:
            clock.sleep(min(LOOK_S, left))

    def _settle(self) -> None:
        """Let all that was received become durable: the next stream begins behind what is stored."""
        while not self.storing.is_idle and not self.stopped():
            self.storing.check()
            self.storing.wait(LOOK_S)

    def _session(self) -> None:
        """Find out where to begin, and stream from there; what the server has not kept is told and left out."""
        with (
            Connection(self.options.url, application="backstay receive") as plain,
            WalStream(self.options.url, self.repository.clock) as stream,
        ):
            require_cluster(self.options.name, self.system, stream.system)
            require_version(plain)
            slot, size = self._ready_slot(plain, stream), segment_size(plain)
            self.report_every = min(STATUS_S, sender_timeout(plain) / 3)
            path = self._path(stream)
            kept_from = stream.position if slot.kept_from is None else slot.kept_from
        kept = start_at(path, kept_from, size)
        start = first_start(WalCoverage.load(self.repository.wal, self.system), path, kept, size)
        try:
            self._stream(start, size, kept_from)
        except _Removed as removed:
            if start.lsn >= kept.lsn:
                raise removed.error from removed
            self.events(as_warning(self._gap(start, kept)))
            self._stream(kept, size, kept_from)

    def _ready_slot(self, plain: Connection, stream: WalStream) -> Slot:
        """The slot, made if there is none, and made anew if the server gave up what it kept."""
        name = slot_name(self.options.name)
        slot = read_slot(plain, name)
        if slot is not None and slot.status == "lost":
            stream.drop_slot(name)
            lost = SlotLost(
                f"{stream.place} gave up WAL that {self.options.name} had not received",
                cause=f"more was written than max_slot_wal_keep_size lets the slot {name} keep",
            )
            self.events(as_warning(lost))
            slot = None
        if slot is None:
            stream.create_slot(name)
            slot = read_slot(plain, name)
        if slot is None:
            raise SourceRefused(f"{stream.place} has no slot {name}", cause="somebody dropped it a moment ago")
        return slot

    def _path(self, stream: WalStream) -> Path:
        """The timelines that lead to the server's. Their histories are stored first: windows follow them."""
        own = None
        for timeline in range(2, stream.timeline + 1):
            own = self._history(stream, timeline)
        return path_of(stream.timeline, own)

    def _history(self, stream: WalStream, timeline: int) -> bytes | None:
        found = stream.history(timeline)
        if found is None:
            return None
        self.repository.wal.store(self.system, *found)
        return found[1]

    def _gap(self, start: Start, kept: Start) -> WalGap:
        first, last = format_lsn(start.lsn + len(start.known)), format_lsn(kept.lsn)
        return WalGap(
            f"WAL of {self.options.name} from {first} to {last} is missing",
            cause="the server removed it before it was received",
            hint="make a new base backup: `backstay pg backup`; `backstay pg windows` shows what can be reached",
        )

    def _stream(self, start: Start, size: int, kept_from: int) -> None:
        """Timeline after timeline, until the server ends or somebody asks to stop. Raises _Removed."""
        with WalStream(self.options.url, self.repository.clock) as stream:
            while True:
                assembler = Assembler(start.timeline, start.lsn, size, start.known)
                self.storing.restart_at(start.lsn + len(start.known))
                streaming = Streaming(
                    stream=stream,
                    assembler=assembler,
                    storing=self.storing,
                    every=self.options.every,
                    report_every=self.report_every,
                    clock=self.repository.clock,
                    stopped=self.stopped,
                    events=self.events,
                    not_before=kept_from,
                )
                try:
                    stream.start(slot_name(self.options.name), start.timeline, start.lsn)
                    self._is_well()
                    ended = streaming.run()
                except SourceRefused as error:
                    if error.state != UNDEFINED_FILE:
                        raise
                    if assembler.position == start.lsn:
                        raise _Removed(error) from error
                    return  # it was removed while we were receiving: the next session sees what is left
                if ended is None or ended.timeline is None:
                    return
                self._settle()
                self._history(stream, ended.timeline)
                start = Start(ended.timeline, ended.lsn // size * size)

    def _is_well(self) -> None:
        if self.is_told:
            self.events(Warned(message="WAL comes in again"))
        self.is_told, self.has_begun, self.pause = False, True, 1.0
