"""Restores that are tried: each snapshot into an empty directory, compared, looked into, and removed again."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from backstay.core.clock import Clock
from backstay.core.events import Event, EventSink, Started
from backstay.core.names import printable
from backstay.core.quantities import plural
from backstay.errors import BackstayError, InsufficientSpace, Interrupted, InvalidRequest
from backstay.operations.clusters.plan import RecoveryTarget, plan_recovery
from backstay.operations.clusters.rehearse import RehearsalOptions, rehearse_cluster
from backstay.operations.restore.postgres_dump import is_dump
from backstay.operations.restore.run import RestoreOptions, RestoreResult, run_restore
from backstay.operations.restore.sqlite import is_sqlite
from backstay.operations.verify.answers import answer
from backstay.operations.verify.notes import Notes
from backstay.operations.verify.patience import stoppable, waiting
from backstay.operations.verify.scratch_dump import restored_dump
from backstay.operations.verify.trial import (
    QUESTION_PATIENCE_S,
    Cell,
    Outcome,
    Question,
    Rehearsed,
    Status,
    Trial,
    TriedCommand,
)
from backstay.operations.wal.bases import is_base
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.sources.postgres.scratch_server import ScratchServer
from backstay.sources.program import Program
from backstay.sources.restore_errors import failure, reason
from backstay.sources.scratch import Scratch
from backstay.sources.sqlite.checking import check, what_lacks
from backstay.sources.sqlite.database import opened

# What is called meanwhile ends it.
WatchedAsk: TypeAlias = Callable[[str, Callable[[], None]], Sequence[Sequence[Cell]]]
_Asked = TypeVar("_Asked", Question, TriedCommand)

SCRATCH: Final = "backstay-rehearsal"  # the names of its directories begin so
_COMPARING: Final = "verify restored files"  # what the restore says when it begins to compare
_SHOWN_FAILURES: Final = 5
_ASKED_HINT: Final = "SQLite and PostgreSQL are asked, dumps of PostgreSQL only where a server for rehearsals is named"
_FAITHFUL_HINT: Final = "the backup is faithful; mend the database itself"
ROOM_HINT: Final = "make room there, or rehearse in another directory: nothing bad was found in the backup by this"
_LOCK_PATIENCE_S: Final = 30.0


def rehearse(
    repository: Repository,
    manifests: Iterable[Manifest],
    place: Path,
    notes: Notes,
    events: EventSink,
    trial: Trial | None = None,
) -> tuple[Rehearsed, ...]:
    """Try each snapshot below `place`; what fails becomes findings."""
    done: list[Rehearsed] = []
    tries = trial or Trial()

    def look() -> str:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except (OSError, ValueError) as error:  # ValueError: a name that no file has
            raise _unusable(place, error) from error
        meant, answered = set[Question](), set[Question]()
        for manifest in manifests:
            rehearsed = rehearse_snapshot(repository, manifest, place, tries, events=events)
            done.append(rehearsed)
            ours = [one for one in tries.questions if one.name in (None, manifest.name)]
            meant.update(ours)
            asked = {outcome.check for outcome in rehearsed.outcomes if outcome.status != "skipped"}
            answered.update(one for one in ours if not rehearsed.ok or _check_of(one) in asked)
            for outcome in rehearsed.outcomes:
                subject = f"snapshot {manifest.id}: {outcome.check}"
                if outcome.status == "failed":
                    notes.find("rehearsal", subject, outcome.details, ROOM_HINT if outcome.lacks_room else "")
                elif outcome.status == "warning":
                    notes.warn("rehearsal", subject, outcome.details, _FAITHFUL_HINT)
        for question in (one for one in tries.questions if one in meant - answered):
            notes.find("rehearsal", _check_of(question), "nothing that was restored could answer it", _ASKED_HINT)
        tried = sum(outcome.status != "skipped" for one in done for outcome in one.outcomes[2:])
        told = f"{plural(sum(one.compared for one in done), 'file')} restored and compared"
        return told + (f", {plural(tried, 'further check')}" if tried else "")

    notes.check("rehearsal", look)
    return tuple(done)


def _unusable(place: Path, error: OSError | ValueError) -> BackstayError:
    if isinstance(error, OSError):
        failed = failure(error, os.fsencode(place), "make a directory in")
        if isinstance(failed, InsufficientSpace):
            return failed
    return InvalidRequest(
        f"cannot rehearse in {printable(os.fsencode(place))}",
        cause=reason(error),
        hint="name a directory that you may write to, or where one can be made",
    )


def _check_of(question: Question) -> str:
    return f"query {question.sql}"


def rehearse_snapshot(
    repository: Repository, manifest: Manifest, place: Path, trial: Trial, *, events: EventSink
) -> Rehearsed:
    """Really restore into an empty directory below `place`, compare every file's SHA-256, and ask what there is to ask.

    Databases are opened: SQLite as it is, a cluster by a server of its version, a dump in the server of the trial.
    """
    begun = repository.clock.monotonic()
    try:
        scratch = Scratch(place.absolute(), SCRATCH)
    except OSError as error:
        if not isinstance(failed := _unusable(place, error), InsufficientSpace):
            raise failed from error
        took = repository.clock.monotonic() - begun
        outcomes = (_failed("restore", failed, took),)
        return Rehearsed(
            snapshot=manifest.id, outcomes=outcomes, files=0, bytes=0, compared=0, usable_s=0.0, duration_s=took
        )
    with scratch:
        return _Rehearsal(repository, manifest, scratch.path, trial, events).run()


@dataclass(slots=True)
class _Rehearsal:
    repository: Repository
    manifest: Manifest
    scratch: Path
    trial: Trial
    events: EventSink
    outcomes: list[Outcome] = field(default_factory=list)
    usable_s: float = 0.0

    @property
    def clock(self) -> Clock:
        return self.repository.clock

    @property
    def files(self) -> Path:
        return self.scratch / "files"

    def run(self) -> Rehearsed:
        begun = self.clock.monotonic()
        self.files.mkdir(mode=0o700)
        self.scratch.chmod(
            0o711
        )  # the server of a cluster may have to run as another user, who must be able to get there
        result = self._restore()
        if result is not None:
            self._databases()
            for command in self._ours(self.trial.commands):
                self._try(f"command {' '.join(command.words)}", partial(self._command, command))
        return Rehearsed(
            snapshot=self.manifest.id,
            outcomes=tuple(self.outcomes),
            files=0 if result is None else result.files,
            bytes=0 if result is None else result.bytes,
            compared=0 if result is None else result.verified,
            usable_s=self.usable_s,
            duration_s=self.clock.monotonic() - begun,
        )

    # -- files

    def _restore(self) -> RestoreResult | None:
        begun = self.clock.monotonic()
        compared_from: list[float] = []

        def watch(event: Event) -> None:
            if isinstance(event, Started) and event.operation == _COMPARING:
                compared_from.append(self.clock.monotonic())
            self.events(event)

        try:
            result = run_restore(self.repository, self.manifest, self.files, RestoreOptions(verify=True), events=watch)
        except Interrupted:
            raise
        except BackstayError as error:
            self._fail("restore", error, begun)
            return None
        ended = self.clock.monotonic()
        middle = compared_from[0] if compared_from else ended
        self.usable_s = middle - begun
        failed = [f"{item.path}: {item.message}" for item in result.errors]
        more = f" and {len(failed) - _SHOWN_FAILURES} more" if len(failed) > _SHOWN_FAILURES else ""
        told = "; ".join(failed[:_SHOWN_FAILURES]) + more
        restored = f"{plural(result.files, 'file')} in {plural(result.dirs, 'directory', 'directories')}"
        self.outcomes.append(
            Outcome(
                check="restore",
                status="failed" if failed else "ok",
                details=told or restored,
                duration_s=middle - begun,
            )
        )
        self._note("compare", not failed, f"{plural(result.verified, 'file')} equal to the snapshot", middle)
        return result

    # -- databases

    def _databases(self) -> None:
        if is_sqlite(self.manifest):
            self._sqlite()
        elif is_base(self.manifest):
            self._cluster()
        elif is_dump(self.manifest):
            self._dump()
        else:
            for question in self._ours(self.trial.questions):
                self._skip(_check_of(question), "only SQLite and PostgreSQL are asked, and this holds neither")

    def _sqlite(self) -> None:
        path = os.fsencode(self.files) + self.manifest.paths[0]

        @contextmanager
        def session(what: str) -> Iterator[sqlite3.Connection]:
            tick = waiting(what, self.events, self.clock)
            with opened(path, "rw", patience_s=_LOCK_PATIENCE_S) as session, stoppable(session, tick):
                yield session

        def whole() -> tuple[bool, str]:
            with session("integrity_check") as asked:
                found = check(asked, thorough=True, limit=20)
            return found.is_ok, str(found)

        def related() -> tuple[Status, str]:
            with session("foreign_key_check") as asked:
                try:
                    broken = asked.execute("PRAGMA foreign_key_check").fetchall()
                except sqlite3.OperationalError as error:
                    if (lacking := what_lacks(error)) is None:
                        raise
                    return "skipped", f"SQLite has no {lacking} here"
            if not broken:
                return "ok", "no foreign key is broken"
            tables = ", ".join(sorted({str(row[0]) for row in broken})[:_SHOWN_FAILURES])
            return "warning", f"{plural(len(broken), 'broken foreign key')} in {tables}, as in the database itself"

        def ask(sql: str, tick: Callable[[], None]) -> list[tuple[str | int | float | None, ...]]:
            with opened(path, "ro", patience_s=_LOCK_PATIENCE_S) as session, stoppable(session, tick):
                return session.execute(sql).fetchall()

        self._try("integrity_check", whole)
        self._try("foreign_key_check", related)
        for question in self._ours(self.trial.questions):
            self._ask(question, ask)

    def _cluster(self) -> None:
        begun = self.clock.monotonic()
        questions = list(self._ours(self.trial.questions))

        def look(server: ScratchServer) -> None:
            for question in questions:
                with server.connect(question.database or "postgres") as session:
                    self._ask(question, session.watched_query)

        try:
            plan = plan_recovery(
                self.repository, self.manifest.name or "", self.manifest.id, RecoveryTarget(kind="immediate")
            )
            options = RehearsalOptions(scratch=self.scratch / "cluster", look=look)
            found = rehearse_cluster(self.repository, plan, options, environ=self.trial.environ, events=self.events)
        except Interrupted:
            raise
        except BackstayError as error:
            self._fail("recovery", error, begun)
            return
        self.usable_s = found.restore_s + found.recovery_s
        told = f"PostgreSQL {found.version} recovered to {found.recovered_lsn} on timeline {found.timeline}"
        self.outcomes.append(Outcome(check="recovery", status="ok", details=told, duration_s=self.usable_s))
        status: Status = "skipped" if found.amcheck == "not there" else found.amcheck
        told = found.amcheck_output or found.amcheck
        self.outcomes.append(Outcome(check="amcheck", status=status, details=told, duration_s=0.0))

    def _dump(self) -> None:
        if self.trial.server is None:
            self._skip("restore into a server", "none is named for rehearsals")
            return
        begun = self.clock.monotonic()
        try:
            with restored_dump(
                self.repository, self.manifest, self.trial.server, environ=self.trial.environ, events=self.events
            ) as session:
                self.usable_s = self.clock.monotonic() - begun
                self._note("restore into a server", True, f"PostgreSQL {session.parameter('server_version')}", begun)
                for question in self._ours(self.trial.questions):
                    self._ask(question, session.watched_query)
        except Interrupted:
            raise
        except BackstayError as error:
            self._fail("restore into a server", error, begun)

    def _ask(self, question: Question, ask: WatchedAsk) -> None:
        check = _check_of(question)

        def asked() -> tuple[bool, str]:
            tick = waiting(check, self.events, self.clock, QUESTION_PATIENCE_S)
            return answer(question, lambda sql: ask(sql, tick))

        self._try(check, asked)

    # -- programs

    def _command(self, command: TriedCommand) -> tuple[bool, str]:
        words = [word.replace("{scratch}", str(self.files)) for word in command.words]
        environ = {
            **self.trial.environ,
            "BACKSTAY_SCRATCH": str(self.files),
            "BACKSTAY_SNAPSHOT": self.manifest.id,
        }
        tick = waiting(f"command {words[0]}", self.events, self.clock, command.patience_s)
        program = Program(words, environ, cwd=self.files, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            status = program.ended(tick)
            return status == 0, program.failure(status).cause if status else "it ended well"
        finally:
            with suppress(ProcessLookupError):  # what it started goes with it: it has a session of its own
                os.killpg(program.process.pid, signal.SIGKILL)
            program.close()

    def _ours(self, asked: Sequence[_Asked]) -> list[_Asked]:
        """Of the questions or commands those that are meant for this snapshot."""
        return [one for one in asked if one.name in (None, self.manifest.name)]

    # -- noting

    def _try(self, check: str, work: Callable[[], tuple[bool | Status, str]]) -> None:
        begun = self.clock.monotonic()
        found: bool | Status
        try:
            found, details = work()
        except Interrupted:
            raise
        except BackstayError as error:
            self._fail(check, error, begun, error.cause)
        else:
            self._note(check, found, details, begun)

    def _note(self, check: str, found: bool | Status, details: str, begun: float) -> None:
        took = self.clock.monotonic() - begun
        status: Status = found if isinstance(found, str) else "ok" if found else "failed"
        self.outcomes.append(Outcome(check=check, status=status, details=details, duration_s=took))

    def _fail(self, check: str, error: BackstayError, begun: float, details: str = "") -> None:
        self.outcomes.append(_failed(check, error, self.clock.monotonic() - begun, details))

    def _skip(self, check: str, why: str) -> None:
        self.outcomes.append(Outcome(check=check, status="skipped", details=why, duration_s=0.0))


def _failed(check: str, error: BackstayError, took: float, details: str = "") -> Outcome:
    lacks_room = isinstance(error, InsufficientSpace)
    told = f"it could not be made, for want of room: {error}" if lacks_room else details or str(error)
    return Outcome(check=check, status="failed", details=told, duration_s=took, lacks_room=lacks_room)
