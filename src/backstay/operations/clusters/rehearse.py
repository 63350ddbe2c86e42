"""Prove that a cluster can be recovered: restore it into a scratch place, start it, and look into it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from backstay.core.clock import Clock
from backstay.core.events import EventSink, Progress, Started, finished, ignore
from backstay.errors import BackstayError, RestoreConflict, SourceRefused
from backstay.operations.clusters.configuration import Configuration
from backstay.operations.clusters.directory import require_empty
from backstay.operations.clusters.plan import RecoveryPlan
from backstay.operations.clusters.restore import ClusterRestoreOptions, restore_cluster
from backstay.repository.repository import Repository
from backstay.sources.postgres.local_server import LocalServer
from backstay.sources.postgres.lsn import format_lsn
from backstay.sources.postgres.programs import server_programs
from backstay.sources.postgres.scratch_server import ScratchServer

PATIENCE_S: Final = 3600.0
_TAIL: Final = 600  # characters of what a program printed


@dataclass(frozen=True, slots=True, kw_only=True)
class Assertion:
    """A query that must give one true value, and what it gave."""

    sql: str
    ok: bool
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRehearsal:
    """The evidence: what was recovered, how long it took, and what was found; `amcheck` says how the indexes are."""

    snapshot: str
    target: str
    version: str
    last_commit: str | None
    recovered_lsn: str
    timeline: int
    bytes: int
    wal_bytes: int
    restore_s: float
    recovery_s: float
    amcheck: Literal["ok", "failed", "not there"]
    amcheck_output: str
    assertions: tuple[Assertion, ...]
    finished: str

    @property
    def ok(self) -> bool:
        return self.amcheck != "failed" and all(assertion.ok for assertion in self.assertions)


@dataclass(frozen=True, slots=True, kw_only=True)
class RehearsalOptions:
    """`scratch` is empty or not there, and gone afterwards; `programs` is found by the server's version if None.

    `configuration` is for a server that kept its own outside of its data directory. `look` is called while the
    recovered server runs.
    """

    scratch: Path
    programs: Path | None = None
    superuser: str = "postgres"
    database: str = "postgres"
    assertions: Sequence[str] = ()
    patience_s: float = PATIENCE_S
    configuration: Configuration | None = None
    look: Callable[[ScratchServer], None] | None = None


def rehearse_cluster(
    repository: Repository,
    plan: RecoveryPlan,
    options: RehearsalOptions,
    *,
    environ: Mapping[str, str] = os.environ,
    events: EventSink = ignore,
) -> ClusterRehearsal:
    """Recover in a scratch place and remove it again.

    Raises RestoreConflict, RecoveryFailed with the end of the server's log, VersionUnsupported when no server of this
    version is installed, and what a restore raises.
    """
    programs = programs_of(plan, options.programs, environ)
    data = options.scratch.absolute()
    spaces = data.with_name(f"{data.name}.tablespaces")
    for place in (data, spaces):
        require_empty(place)
    if plan.made:
        made = plan.made[0]
        raise RestoreConflict(
            f"this cannot be rehearsed: tablespace {made.oid} was made behind the base backup",
            cause=f"at {format_lsn(made.lsn)} its server makes it in {made.place}, outside of the scratch place",
            hint="make a base backup after each CREATE TABLESPACE; `backstay pg restore` goes where that place is free",
        )
    existed = [place for place in (data, spaces) if place.exists()]
    try:
        return _Rehearsal(repository, plan, options, programs, data, events).run()
    finally:
        for place in (data, spaces):
            _remove(place, keep=place in existed)


def programs_of(plan: RecoveryPlan, given: Path | None, environ: Mapping[str, str]) -> Path:
    """Where the programs of the server's version are. Raises VersionUnsupported."""
    return given if given is not None else server_programs(int(plan.base.version.partition(".")[0]), environ)


def start_recovered(data: Path, programs: Path, *, patience_s: float, clock: Clock, events: EventSink = ignore) -> None:
    """Start a server in a restored data directory and wait until it has recovered; its log lies in it.

    Raises RecoveryFailed with the end of that log, and what `events` raises; the server is stopped then, unless it
    ended by itself.
    """
    server = LocalServer(data, programs, data, clock=clock)
    try:
        server.start(patience_s=patience_s, tick=_ticking(events, "recover"))
    except BaseException:
        server.stop()
        raise
    finally:
        server.tidy()


def _ticking(events: EventSink, what: str) -> Callable[[], None]:
    """To be called during a wait: it raises what `events` does when somebody asks for the end."""
    return partial(events, Progress(files=0, bytes=0, current=what))


def _remove(place: Path, *, keep: bool) -> None:
    """What lies in a place that was empty, and the place itself unless it was there."""
    if not place.is_dir():
        return
    for found in list(place.iterdir()):
        if found.is_dir() and not found.is_symlink():
            shutil.rmtree(found, ignore_errors=True)
        else:
            found.unlink(missing_ok=True)
    if not keep:
        place.rmdir()


@dataclass(slots=True)
class _Rehearsal:
    repository: Repository
    plan: RecoveryPlan
    options: RehearsalOptions
    programs: Path
    data: Path
    events: EventSink

    def run(self) -> ClusterRehearsal:
        clock = self.repository.clock
        began = clock.monotonic()
        restored = restore_cluster(
            self.repository,
            self.plan,
            self.data,
            ClusterRestoreOptions(configuration=self.options.configuration),
            events=self.events,
        )
        restored_at = clock.monotonic()
        self.events(Started(operation="recover"))
        with ScratchServer(self.data, self.programs, superuser=self.options.superuser, clock=clock) as server:
            server.start(patience_s=self.options.patience_s, tick=_ticking(self.events, "recover"))
            recovered_at = clock.monotonic()
            with server.connect() as session:
                lsn, timeline = session.query("select pg_current_wal_lsn(), timeline_id from pg_control_checkpoint()")[
                    0
                ]
            amcheck, output = self._amcheck(server)
            assertions = tuple(self._assert(server, sql) for sql in self.options.assertions)
            if self.options.look is not None:
                self.options.look(server)
        finished(self.events, "recover")
        last = self.plan.last_commit
        return ClusterRehearsal(
            snapshot=self.plan.base.snapshot,
            target=str(self.plan.target),
            version=self.plan.base.version,
            last_commit=last.isoformat() if last is not None else None,
            recovered_lsn=lsn or "",
            timeline=int(timeline or 0),
            bytes=restored.bytes,
            wal_bytes=restored.wal_bytes,
            restore_s=restored_at - began,
            recovery_s=recovered_at - restored_at,
            amcheck=amcheck,
            amcheck_output=output,
            assertions=assertions,
            finished=clock.now().isoformat(timespec="seconds"),
        )

    def _amcheck(self, server: ScratchServer) -> tuple[Literal["ok", "failed", "not there"], str]:
        """Every index against its table, in all databases."""
        if not server.has("pg_amcheck"):
            return "not there", "pg_amcheck is not installed"
        tick = _ticking(self.events, "check indexes")
        done = server.run("pg_amcheck", "--all", "--install-missing", "--heapallindexed", tick=tick)
        output = done.stdout.strip()[-_TAIL:]
        if done.returncode == 0:
            return "ok", output
        is_missing = "amcheck.control" in output or 'extension "amcheck" is not available' in output
        return ("not there" if is_missing else "failed"), output

    def _assert(self, server: ScratchServer, sql: str) -> Assertion:
        try:
            with server.connect(self.options.database) as session:
                value = session.watched_query(sql, _ticking(self.events, sql))[0][0] or ""
        except (SourceRefused, IndexError) as error:
            told = error.cause if isinstance(error, BackstayError) else "it gives no row"
            return Assertion(sql=sql, ok=False, value=told)
        return Assertion(sql=sql, ok=value == "t", value=value)
