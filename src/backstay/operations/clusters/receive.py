"""Receive the WAL of a PostgreSQL cluster into the repository, until asked to stop.

Order: bytes become durable in the repository, then the server hears of it, then it may forget them. Whatever a crash
interrupts, the server's slot still has all that is not stored; the next receiver begins at the start of the first
segment that is not whole.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path as Directory
from typing import Final, Literal, TypeAlias

from backstay.codec.digest import sha256
from backstay.core.clock import LOOK_S, rest
from backstay.core.events import EventSink, Started, Warned, ignore
from backstay.core.quantities import plural
from backstay.errors import (
    InsufficientSpace,
    SlotInUse,
    SlotLost,
    SourceRefused,
    SourceUnreachable,
    StorageUnavailable,
    WalGap,
)
from backstay.operations.clusters.backup import ClusterBackupOptions
from backstay.operations.clusters.heartbeat import Heartbeat
from backstay.operations.clusters.required_base import RequiredBase
from backstay.operations.clusters.tablespace_watch import TablespaceWatch
from backstay.operations.wal.bases import Base, base_backups, sound
from backstay.operations.wal.coverage import WalCoverage
from backstay.operations.wal.names import bind_name
from backstay.operations.wal.spooling import Spooling, replay
from backstay.operations.wal.start import Start, first_start, start_at
from backstay.operations.wal.storing import Assembler, Piece, Storing, as_warning, forget_superseded
from backstay.operations.wal.streaming import STATUS_S, Stopped, Streaming
from backstay.operations.wal.ways import is_led_to
from backstay.operations.wal.windows import open_gap
from backstay.repository.repository import Repository
from backstay.repository.wal.spool import WalSpool
from backstay.repository.wal.store import require_cluster
from backstay.sources.postgres.base_backup import read_tablespaces
from backstay.sources.postgres.connection import Connection
from backstay.sources.postgres.lsn import format_lsn
from backstay.sources.postgres.receiver import (
    UNDEFINED_FILE,
    Slot,
    WalStream,
    commits_wait_for,
    read_slot,
    require_version,
    segment_size,
    sender_timeout,
)
from backstay.sources.postgres.timelines import Path, path_of
from backstay.storage.fitness import require_fit

LONGEST_PAUSE_S: Final = 30.0
IN_USE_S: Final = 10.0  # how long a receiver that was killed may still seem to be there
_BEHIND_GAP: Final = "WAL before it is missing"
_NOT_IN_SLOTS: Final = re.compile(r"[^a-z0-9_]")


Acknowledged: TypeAlias = Literal["repo", "local"]  # when WAL is durable in the repository, or in a spool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiveOptions:
    """Whose WAL to receive. What has come is stored every `every` seconds; `heartbeat` is in seconds, 0 for none.

    A `synchronous` receiver may be named in synchronous_standby_names: it stores and acknowledges as fast as it can.
    Spools lie below `spool`. Behind a gap, and on a timeline that no base backup leads to, one is made, from host
    `host`, unless `base_backup` is false.
    """

    url: str
    name: str
    host: str
    spool: Directory
    every: float = 5.0
    heartbeat: float = 900.0
    synchronous: bool = False
    acknowledge: Acknowledged = "repo"
    base_backup: bool = True


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


def run_receive(
    repository: Repository, options: ReceiveOptions, stopped: Stopped, *, events: EventSink = ignore
) -> ReceiveResult:
    """Receive until `stopped` says so. What is lost for good is told as a warning, and receiving goes on behind it.

    WAL that only this machine has, from a receiver before this one, is stored first: its server may be gone. Raises
    SourceUnreachable when the server cannot be reached at first, SlotInUse, ReplicationDenied, WalLevelTooLow,
    IdentityMismatch, WalConflict, StorageUnfit.
    """
    # No lease is taken, even where writers need one: WAL lies under names that say which bytes belong there, a slot
    # lets one receiver in, and backups must go on beside it.
    require_fit(repository.backend)
    with ExitStack() as stack:
        spool = _open_spool(repository, options, events, stack)
        with WalStream(options.url, repository.clock) as stream:
            system = stream.system
        bind_name(repository, options.name, system, events=events)
        spooling = Spooling(spool, system, events) if spool is not None else None
        bases = _bases(repository, options, events) if options.base_backup else None
        if bases is not None:
            stack.callback(bases.close)
        watch = TablespaceWatch(system, bases, events)
        heart = Heartbeat(options.url, options.heartbeat, repository.clock, events)
        stack.callback(heart.close)

        def stored(piece: Piece) -> None:
            heart.noticed(piece)
            watch.noticed(piece)
            if spooling is not None:
                spooling.stored(piece)

        parts = forget_superseded(repository, system, events)
        storing = Storing(repository, system, events, parts=parts, noticed=stored)
        stack.callback(storing.close)
        events(Started(operation="receive WAL"))
        if options.heartbeat > 0:
            heart.start()

        def is_over() -> bool:
            if bases is not None:
                bases.check()
            return stopped()

        _Receiver(repository, options, system, storing, spooling, bases, watch, is_over, events).run()
        if spooling is not None and storing.is_idle:
            spooling.finish()
    return ReceiveResult(
        name=options.name,
        system=system,
        slot=slot_name(options.name),
        segments=storing.segments,
        bytes=storing.bytes,
        durable=storing.durable,
    )


def _open_spool(
    repository: Repository, options: ReceiveOptions, events: EventSink, stack: ExitStack
) -> WalSpool | None:
    """The spool, if there is to be one. What an earlier receiver left there is stored in any case.

    Raises SlotInUse, WalConflict, StorageUnavailable.
    """
    directory = options.spool / repository.header.uuid / slot_name(options.name)
    if options.acknowledge == "repo" and not directory.exists():
        return None
    spool = stack.enter_context(WalSpool(directory, repository.keyring))
    if segments := replay(repository, spool, events=events):
        events(Warned(message=f"what only this machine had of {plural(segments, 'segment')} is stored now"))
    return spool if options.acknowledge == "local" else None


def _bases(repository: Repository, options: ReceiveOptions, events: EventSink) -> RequiredBase:
    wanted = ClusterBackupOptions(name=options.name, host=options.host)
    return RequiredBase(repository, options.url, wanted, events)


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
    spooling: Spooling | None
    bases: RequiredBase | None
    watch: TablespaceWatch
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
                rest(self.repository.clock, 0.5, self.stopped)
            except (SourceUnreachable, StorageUnavailable, InsufficientSpace) as error:
                if not self.is_told:
                    self.events(Warned(message=f"{error}; it is tried again, and the server keeps its WAL meanwhile"))
                self.is_told = True
                rest(self.repository.clock, self.pause, self.stopped)
                self.pause = min(2 * self.pause, LONGEST_PAUSE_S)
            else:
                rest(self.repository.clock, LOOK_S, self.stopped)

    def _settle(self) -> None:
        """Let all that was received become durable: the next stream begins behind what is stored.

        Then the spool has nothing that is not in the repository. It is emptied, or each stream that breaks off would
        leave a journal of the same segment, until none has room and the segment never becomes whole.
        """
        while not self.storing.is_idle and not self.stopped():
            self.storing.check()
            self.storing.wait(LOOK_S)
        self.storing.check()
        if self.spooling is not None and self.storing.is_idle:
            self.spooling.finish()

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
            known = self._known()
            self.watch.follow(path, stream.position, known, read_tablespaces(plain))
        kept = start_at(path, kept_from, size)
        coverage = WalCoverage.load(self.repository.wal, self.system)
        start = first_start(coverage, path, kept, size)
        self._require_base(coverage, path, start, known)
        try:
            self._stream(start, size, kept_from)
        except _Removed as removed:
            if start.lsn >= kept.lsn:
                raise removed.error from removed
            self.events(as_warning(self._gap(start, kept)))
            if self.bases is not None:
                self.bases.require(self.system, path, kept.lsn, _BEHIND_GAP)
            self._stream(kept, size, kept_from)

    def _known(self) -> list[Base]:
        known = base_backups(self.repository, self.options.name, on_damage=lambda _name, _error: None)
        return [base for base in sound(known) if base.system == self.system]

    def _require_base(self, coverage: WalCoverage, path: Path, start: Start, known: list[Base]) -> None:
        """A gap that was met before, by this receiver or another, must have a base backup behind it; and where others
        were made before, one must lead to the timeline of the server.
        """
        if self.bases is None:
            return
        gap = open_gap(coverage, path, known, before=start.lsn + len(start.known))
        if gap is not None:
            self.bases.require(self.system, path, gap.to_lsn, _BEHIND_GAP)
        elif known and not is_led_to(path, known):
            why = f"none leads to timeline {path.timeline}"
            self.bases.require(self.system, path, path.stretches[-1].begin, why)

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
        made = "a base backup is made now" if self.bases is not None else "make a new base backup: `backstay pg backup`"
        return WalGap(
            f"WAL of {self.options.name} from {first} to {last} is missing",
            cause="the server removed it before it was received",
            hint=f"{made}; `backstay pg windows` shows what can be reached",
        )

    def _stream(self, start: Start, size: int, kept_from: int) -> None:
        """Timeline after timeline, until the server ends or somebody asks to stop. Raises _Removed."""
        application = slot_name(self.options.name) if self.options.synchronous else "backstay receive"
        with WalStream(self.options.url, self.repository.clock, application=application) as stream:
            while True:
                assembler = Assembler(start.timeline, start.lsn, size, start.known)
                self.storing.restart_at(start.lsn + len(start.known))
                if self.spooling is not None:
                    self.spooling.restart_at(start.timeline, start.lsn, size)
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
                    is_synchronous=self.options.synchronous,
                    spooling=self.spooling,
                )
                try:
                    stream.start(slot_name(self.options.name), start.timeline, start.lsn)
                    self._is_well(stream)
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
                coverage = WalCoverage.load(self.repository.wal, self.system, segment_size=size)
                path = coverage.path(ended.timeline)
                self._require_base(coverage, path, start, self._known())
                self.watch.turn(path)

    def _is_well(self, stream: WalStream) -> None:
        if self.is_told:
            self.events(Warned(message="WAL comes in again"))
        if self.options.synchronous and not self.has_begun:
            self._see_that_commits_wait(stream)
        self.is_told, self.has_begun, self.pause = False, True, 1.0

    def _see_that_commits_wait(self, stream: WalStream) -> None:
        with Connection(self.options.url, application="backstay receive") as plain:
            if commits_wait_for(plain, stream.process):
                return
        name = slot_name(self.options.name)
        self.events(
            Warned(
                message=f"commits do not wait for this receiver; they do after ALTER SYSTEM SET "
                f"synchronous_standby_names = '{name}'; SELECT pg_reload_conf();"
            )
        )
