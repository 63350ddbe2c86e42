"""Running writers: announced before they look, seen alive by heartbeats, ended by commit or fence."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from backstay.core.clock import Clock
from backstay.core.ids import Random, is_ulid, new_ulid
from backstay.errors import (
    BackstayError,
    CorruptedBackup,
    ObjectExists,
    ObjectNotFound,
    ObjectUnreadable,
    SnapshotFenced,
)
from backstay.repository.format import SESSIONS, RecordKind, session_name
from backstay.repository.keys.keyring import Keyring
from backstay.storage.backend import StorageBackend
from backstay.storage.sweeping import store_time

LEASE: Final = timedelta(hours=1)  # a session without a sign of life for longer may be fenced
HEARTBEAT_S: Final = 600.0


class SessionRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who is writing: enough to tell, on the same host, whether that process still lives."""

    session: str
    host: str
    boot: str
    namespace: str
    pid: int
    process_start: str
    started_ns: int


@dataclass(frozen=True, slots=True)
class RunningSession:
    """One announced session; `last_seen_ns` is by the store's clock, `record` None if it cannot be read."""

    id: str
    last_seen_ns: int
    names: tuple[str, ...]
    record: SessionRecord | None

    def __str__(self) -> str:
        if self.record is None:
            return "a process that cannot be named"
        return f"process {self.record.pid} on {self.record.host.partition('/')[0]}"


@dataclass(frozen=True, slots=True)
class Process:
    """This process, as others can check it."""

    host: str  # host name and machine id
    boot: str  # changes whenever the machine is started
    namespace: str  # process ids mean something only inside it
    pid: int
    start: str
    booted_ns: int = 0  # when the machine was started, by its own clock; 0 if that is not known

    @classmethod
    def current(cls) -> Process:
        pid = os.getpid()
        host = f"{socket.gethostname()}/{_read_line('/etc/machine-id')}"
        boot = _read_line("/proc/sys/kernel/random/boot_id")
        return cls(host, boot, _namespace(), pid, process_start(pid) or "", _booted_ns())


def _read_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _booted_ns() -> int:
    """When this machine was started, 0 if nobody tells (proc(5), `btime` of stat)."""
    try:
        lines = Path("/proc/stat").read_bytes().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(b"btime ")), 0) * 10**9


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def process_start(pid: int) -> str | None:
    """When a process began, in clock ticks since boot; None when there is none (proc(5), field 22 of stat)."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()  # the program's name in it is any bytes
    except OSError:
        return None
    return line.rpartition(b")")[2].split()[19].decode("ascii")


def is_dead_here(record: SessionRecord, here: Process, start_of: Callable[[int], str | None] = process_start) -> bool:
    """Whether the session's process ran on this very host, and is gone; doubt means no.

    A clone of this host has its name and id: a writer of another boot is dead if it gave its last sign before this one.
    """
    if not here.boot or record.host != here.host or here.host.endswith("/"):
        return False
    if record.boot != here.boot:  # this host was started anew since, or a clone of it that was started by itself
        return record.started_ns < here.booted_ns
    return record.namespace == here.namespace and start_of(record.pid) != record.process_start


def is_dead(
    session: RunningSession, backend: StorageBackend, *, here: Process, random: Random, lease: timedelta = LEASE
) -> bool:
    """Whether a writer may be fenced: its process is gone, or it gave no sign of life for longer than the lease."""
    if session.record is not None and is_dead_here(session.record, here):
        return True
    now = store_time(backend, random)
    return now - session.last_seen_ns > lease // timedelta(microseconds=1) * 1000


class Session:
    """One writer's announcement. Announce before listing collections, close after commit or giving up."""

    def __init__(
        self,
        backend: StorageBackend,
        keyring: Keyring,
        clock: Clock,
        *,
        process: Process,
        random: Random = os.urandom,
        place: str = SESSIONS,
    ) -> None:
        self._backend, self._keyring, self._clock, self._process = backend, keyring, clock, process
        self._place = place
        self.id = new_ulid(clock.now_ns(), random)
        self._beat = 0
        self._undecided = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def announce(self) -> None:
        """Make this writer visible; from here on a collector waits for it or fences it."""
        self._write(0)

    def start_heartbeat(self, every_s: float = HEARTBEAT_S) -> None:
        """Give a sign of life from time to time, on a thread."""
        self._thread = threading.Thread(target=self._run, args=(every_s,), name="heartbeat", daemon=True)
        self._thread.start()

    def _run(self, every_s: float) -> None:
        while not self._stop.wait(every_s):
            try:
                self.beat()
            except BackstayError:
                continue  # the next beat may succeed; if none does, the commit says that it was fenced

    def beat(self) -> None:
        """One sign of life: a new small object, then the one before is removed.

        The announcement itself (beat 0) stays, so that no listing, however timed, can miss this session.
        """
        self._beat += 1
        self._write(self._beat)
        if self._beat > 1:
            self._backend.delete(session_name(self.id, self._beat - 1, place=self._place))

    def _write(self, beat: int) -> None:
        process = self._process
        record = SessionRecord(
            self.id, process.host, process.boot, process.namespace, process.pid, process.start, self._clock.now_ns()
        )
        data = self._keyring.seal(RecordKind.SESSION, record)
        try:
            self._backend.store(session_name(self.id, beat, place=self._place), data)
        except ObjectExists:  # an earlier try of this very call got through
            return

    @contextmanager
    def deciding(self) -> Iterator[None]:
        """Around the commit: unless its end becomes known, nobody may take this writer for ended.

        A commit whose answer did not come may still be on its way. If the announcement were gone, a collector would
        judge without it, and delete packs that the snapshot needs when it arrives. So the announcement stays, and a
        collector decides by a fence, on which a late commit fails.
        """
        self._undecided = True
        try:
            yield
        except SnapshotFenced:
            self._undecided = False
            raise
        self._undecided = False

    def close(self) -> None:
        """Take the announcement back: this writer has committed, or never will. If neither is known, it stays."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._undecided:
            return
        for info in list(self._backend.list(f"{self._place}{self.id}.")):
            self._backend.delete(info.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        try:
            self.close()
        except BackstayError:
            if error is None:
                raise  # otherwise the first error is the one to report; the lease ends this session


def running_sessions(backend: StorageBackend, keyring: Keyring, *, place: str = SESSIONS) -> list[RunningSession]:
    """Every announced session, with its newest sign of life."""
    seen: dict[str, list[tuple[int, str]]] = {}
    for info in backend.list(place):
        ulid, _, beat = info.name.removeprefix(place).partition(".")
        if not is_ulid(ulid) or not beat.isdecimal():
            raise CorruptedBackup(
                "a foreign object lies among the sessions",
                cause=f"{info.name} is not the name of a session",
                hint="find out what put it there, and remove it",
            )
        seen.setdefault(ulid, []).append((info.modified_ns, info.name))
    return [
        RunningSession(ulid, max(beats)[0], tuple(name for _, name in beats), _read(backend, keyring, ulid, beats))
        for ulid, beats in sorted(seen.items())
    ]


def _read(backend: StorageBackend, keyring: Keyring, ulid: str, beats: list[tuple[int, str]]) -> SessionRecord | None:
    """The record of the newest beat; an unreadable one only means that nothing is known of the process."""
    try:
        data = backend.retrieve(max(beats)[1])
        record = keyring.open(data, RecordKind.SESSION, SessionRecord)
    except (CorruptedBackup, ObjectNotFound, ObjectUnreadable):
        return None
    return record if record.session == ulid else None
