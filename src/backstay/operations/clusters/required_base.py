"""A base backup behind a gap or a tablespace that was made, or on a timeline that none leads to: without one nothing
can be recovered that a receiver stores from there on.

Whether one is needed is seen in the repository, so that a receiver that was killed before it made one leaves that to
the next.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from typing import Final

from backstay.core.events import Event, EventSink, Warned
from backstay.errors import BackstayError, BackupFailed, ChecksumFailure, Interrupted
from backstay.operations.clusters.backup import ClusterBackupOptions, back_up_cluster
from backstay.operations.wal.bases import base_backups, sound
from backstay.operations.wal.storing import as_warning
from backstay.operations.wal.windows import has_base_behind
from backstay.repository.repository import Repository
from backstay.sources.postgres.connection import Connection
from backstay.sources.postgres.lsn import format_lsn, parse_lsn
from backstay.sources.postgres.timelines import Path

FIRST_PAUSE_S: Final = 5.0
LONGEST_PAUSE_S: Final = 300.0
DAMAGED_PAUSE_S: Final = 3600.0  # damaged pages stay until somebody mends them, and each try makes a snapshot
CLOSING_S: Final = 10.0  # how long a base backup may take to notice that it should end


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Where a base backup of a cluster must begin, or later, and why; `path` leads to the timeline of the server."""

    system: int
    path: Path
    lsn: int
    why: str


class RequiredBase:
    """Makes base backups that are required, on a thread of its own, and tries until they are there.

    They use the index of the repository, and its lease where one is needed; both are let go of afterwards. A crash in
    between leaves what one in any backup leaves.
    """

    def __init__(self, repository: Repository, url: str, options: ClusterBackupOptions, events: EventSink) -> None:
        self._repository, self._url, self._options, self._events = repository, url, options, events
        self._changed = threading.Condition()
        self._wanted: _Wanted | None = None
        self._is_closing = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="base backup", daemon=True)
        self._thread.start()

    def require(self, system: int, path: Path, lsn: int, why: str) -> None:
        """Let there be a base backup of a cluster behind a position, and behind what was required on the same path.

        `why` is told after "as".
        """
        with self._changed:
            waiting = self._wanted
            if waiting is None or (waiting.system, waiting.path) != (system, path) or waiting.lsn < lsn:
                self._wanted = _Wanted(system, path, lsn, why)
            self._changed.notify_all()

    def check(self) -> None:
        """Raise what is no refusal but a mistake of ours: nobody would make base backups any more."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Give up the base backup that is being made."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(CLOSING_S)  # one that waits for its server ends with the process

    def _run(self) -> None:
        try:
            self._make_wanted()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that receives, which raises it
            self._failure = error

    def _make_wanted(self) -> None:
        pause, is_told = 0.0, False
        while (wanted := self._next(pause)) is not None:
            try:
                self._satisfy(wanted)
            except Interrupted:
                return
            except BackstayError as error:
                if not is_told:
                    self._events(as_warning(error))
                    self._events(Warned(message="there is no such base backup yet; it is tried again"))
                is_told = True
                pause = min(2 * pause, LONGEST_PAUSE_S) or FIRST_PAUSE_S
                if isinstance(error, ChecksumFailure):
                    pause = DAMAGED_PAUSE_S
            else:
                pause, is_told = 0.0, False

    def _next(self, pause: float) -> _Wanted | None:
        """What is wanted, after a pause; None at the end."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._is_closing, pause):
                self._changed.wait_for(lambda: self._is_closing or self._wanted is not None)
            return None if self._is_closing else self._wanted

    def _satisfy(self, wanted: _Wanted) -> None:
        if not self._is_there(wanted):
            self._make(wanted)
        with self._changed:
            if self._wanted == wanted:
                self._wanted = None

    def _is_there(self, wanted: _Wanted) -> bool:
        bases = sound(base_backups(self._repository, self._options.name, on_damage=lambda _name, _error: None))
        return has_base_behind(bases, wanted.system, wanted.path, wanted.lsn)

    def _require_reached(self, wanted: _Wanted) -> None:
        """Raises BackupFailed where a standby would begin a base backup before that: at the last checkpoint of its
        primary that it has replayed."""
        with Connection(self._url, application="backstay receive") as server:
            if server.value("SELECT pg_is_in_recovery()") != "t":
                return
            begin = server.value("SELECT redo_lsn FROM pg_control_checkpoint()")
        if parse_lsn(begin) < wanted.lsn:
            raise _before(wanted, f"the standby has replayed no checkpoint behind that, and would begin at {begin}")

    def _make(self, wanted: _Wanted) -> None:
        self._require_reached(wanted)
        self._events(Warned(message=f"a base backup behind {format_lsn(wanted.lsn)} is being made, as {wanted.why}"))
        options = replace(self._options, description=f"made by the receiver, as {wanted.why}")
        try:
            made = back_up_cluster(self._repository, self._url, options, events=self._pass_on)
        finally:
            self._repository.release()
        if not self._is_there(wanted):
            raise _before(wanted, f"{made.snapshot} begins at {made.start_lsn}, or on another timeline")
        self._events(Warned(message=f"base backup {made.snapshot} is made: what follows can be recovered"))

    def _pass_on(self, event: Event) -> None:
        """Warnings; its progress is not that of the receiver. Raises Interrupted at the end."""
        if self._is_closing:
            raise Interrupted("a base backup that is required was given up", cause="its receiver was stopped")
        if isinstance(event, Warned):
            self._events(event)


def _before(wanted: _Wanted, cause: str) -> BackupFailed:
    return BackupFailed(
        f"there is no base backup behind {format_lsn(wanted.lsn)}",
        cause=cause,
        hint="a CHECKPOINT on the primary lets its standbys go on",
    )
