"""The service without its interface: everything opened, jobs run, and what happens by itself.

`serve` puts the interface before it, `worker` does without.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from sqlalchemy import select
from sqlalchemy.orm import Session

from backstay.catalog.audit import AuditLog
from backstay.catalog.audit_verifying import AuditVerdict
from backstay.catalog.checkpoints import Checkpoint, CheckpointFile, trusted_keys
from backstay.catalog.database import Catalog
from backstay.catalog.index import BackupIndex
from backstay.catalog.models import ScheduleRecord
from backstay.control.access.access import Access
from backstay.control.access.authority_file import open_authority
from backstay.control.agents.desk import Desk
from backstay.control.agents.processes import AgentProcesses
from backstay.control.agents.sweeping import AgentSweeper
from backstay.control.jobs.clearing import clear_jobs
from backstay.control.jobs.dbos_engine import POLL_S, DbosEngine
from backstay.control.jobs.jobs import Jobs
from backstay.control.jobs.port import JobEngine
from backstay.control.jobs.running import Runner
from backstay.control.jobs.sweeping import Sweeper
from backstay.control.jobs.workers import Workers
from backstay.control.metrics.counters import count
from backstay.control.metrics.expected import expectations_of
from backstay.control.metrics.names import MISSED
from backstay.control.notifying.alerts import Alerts
from backstay.control.notifying.notifier import Notifier
from backstay.control.notifying.settling import Settling
from backstay.control.scheduling.configuration import ConfigurationMarks
from backstay.control.scheduling.schedules import Schedules
from backstay.control.scheduling.ticker import Ticker
from backstay.control.service import place
from backstay.control.service.background import Background, Task
from backstay.control.service.context import ServiceContext
from backstay.control.service.handlers import HANDLERS, Handler, handle
from backstay.control.service.options import ServiceOptions
from backstay.control.service.policies import Policies
from backstay.control.service.recovering import forget_states
from backstay.control.service.upkeep import RELOAD_S, WATCH_S, Upkeep
from backstay.core.clock import Clock, SystemClock
from backstay.core.ids import Random
from backstay.errors import BackstayError, CatalogUnavailable

_FORGET_S: Final = 3600.0
_FORGOTTEN: Final = timedelta(days=7)
_LAST_S: Final = 10.0  # for what happens by itself, and messages on their way
STOP_S: Final = 8.0  # for running jobs to come to their next event


@dataclass(frozen=True, slots=True, kw_only=True)
class NextRun:
    """What runs next, and when."""

    at: datetime
    policy: str
    type: str


@dataclass(slots=True, kw_only=True)
class Service:
    """All parts, open. Use it as a context; `start` begins what runs by itself, `stop` ends it."""

    options: ServiceOptions
    data_dir: Path
    environ: Mapping[str, str]
    clock: Clock
    random: Random
    warn: Callable[[str], None]
    catalog: Catalog
    engine: JobEngine
    jobs: Jobs
    workers: Workers
    policies: Policies
    access: Access
    audit: AuditLog
    index: BackupIndex
    schedules: Schedules
    ticker: Ticker
    notifier: Notifier
    alerts: Alerts
    settling: Settling
    handlers: Mapping[str, Handler]
    _opened: ExitStack
    _background: Background | None = None
    desk: Desk = field(init=False)
    _sweeper: Sweeper = field(init=False)
    _agent_sweeper: AgentSweeper = field(init=False)
    _upkeep: Upkeep = field(init=False)

    def __post_init__(self) -> None:
        processes = AgentProcesses(self.catalog, self.clock, lease_s=self.options.agent_lease_s)
        self.desk = Desk(self.catalog, self.clock, processes, lambda: self.policies.loaded)
        self._agent_sweeper = AgentSweeper(self.catalog, self.clock, processes)
        self._sweeper = Sweeper(self.catalog, self.engine, self.workers, self.clock)
        self._upkeep = Upkeep(
            access=self.access,
            catalog=self.catalog,
            policies=self.policies,
            schedules=self.schedules,
            ticker=self.ticker,
            notifier=self.notifier,
            alerts=self.alerts,
            settling=self.settling,
            index=self.index,
            data_dir=self.data_dir,
            environ=self.environ,
            clock=self.clock,
            random=self.random,
            warn=self.warn,
        )

    @classmethod
    def open(
        cls,
        options: ServiceOptions,
        *,
        environ: Mapping[str, str],
        warn: Callable[[str], None],
        clock: Clock | None = None,
        random: Random = os.urandom,
        handlers: Mapping[str, Handler] = HANDLERS,
    ) -> Self:
        """Open everything; nothing runs yet.

        Raises PolicyInvalid, InvalidRequest, JobConflict when another process has the data directory, and
        CatalogUnavailable.
        """
        clock = clock or SystemClock()
        with ExitStack() as opened:
            policies = Policies(options.config, environ)
            directory = place.prepare(options.data_dir)
            if options.embedded:
                opened.enter_context(place.held(directory))
            catalog = opened.enter_context(Catalog.open(options.catalog_url(directory)))
            catalog.migrate()
            engine = DbosEngine.open(
                options.jobs_url(directory),
                worker=_worker_name(random),
                clock=clock,
                poll_s=options.poll_s or POLL_S,
            )
            opened.callback(engine.close)
            authority = open_authority(directory, clock)
            access = Access(catalog, clock, random=random, authority=authority, run_by=policies.run_by)
            access.use(policies.access)
            jobs = Jobs(catalog, engine, clock, random=random, agent_of=policies.agent_of)
            schedules = Schedules(catalog, clock, policies=lambda: policies.loaded, random=random)
            marks = ConfigurationMarks(lambda: policies.loaded, clock, environ) if "backup" in options.queues else None
            notifier = Notifier(catalog, clock, random=random)
            alerts = Alerts(catalog, clock, notifier, expected=lambda: expectations_of(policies.loaded))
            return cls(
                options=options,
                data_dir=directory,
                environ=environ,
                clock=clock,
                random=random,
                warn=warn,
                catalog=catalog,
                engine=engine,
                jobs=jobs,
                workers=Workers(catalog, clock, lease_s=options.lease_s),
                policies=policies,
                access=access,
                audit=AuditLog(catalog, clock),
                index=BackupIndex(catalog, clock),
                schedules=schedules,
                ticker=Ticker(schedules, jobs, clock, on_missed=_count_missed, marks=marks),
                notifier=notifier,
                alerts=alerts,
                settling=Settling(catalog, clock, notifier, alerts),
                handlers=handlers,
                _opened=opened.pop_all(),
            )

    # -- running

    def start(self) -> None:
        """Begin to run jobs, and what happens by itself.

        Order: the worker's row is there before it takes its first job, so that whoever sees the job sees the row.
        """
        if self.options.own_schedules:
            self._upkeep.take_over()
            self._look_at_audit_log()
            self.sign_audit_log()
        if self.options.queues:
            self._beat()
            work = partial(handle, self.handlers, self.context())
            runner = Runner(self.catalog, self.clock, work)
            self.engine.start(runner, queues=self.options.queues)
        self._background = Background(self.background(), self.clock, self.warn)
        self._background.start()

    def context(self) -> ServiceContext:
        """What jobs work with."""
        return ServiceContext(
            policies=self.policies,
            catalog=self.catalog,
            index=self.index,
            jobs=self.jobs,
            notifier=self.notifier,
            data_dir=self.data_dir,
            environ=self.environ,
            clock=self.clock,
            random=self.random,
            warn=self.warn,
        )

    def background(self) -> list[Task]:
        """What happens by itself."""
        tasks = [
            Task(name="sweeping jobs", every_s=self.options.sweep_s, run=self._sweep),
            Task(name="forgetting old jobs", every_s=_FORGET_S, run=self._forget),
        ]
        if self.options.own_schedules:
            tasks += self._upkeep.tasks()
        else:
            tasks.append(Task(name="reading the policy file", every_s=RELOAD_S, run=self.policies.reload))
            # Whoever runs backups has the files of policies; whoever only serves the interface may not.
            tasks.append(Task(name="watching configurations", every_s=WATCH_S, run=self.ticker.watch))
        if self.options.queues:
            tasks.append(Task(name="telling that this worker lives", every_s=self.options.beat_s, run=self._beat))
        return tasks

    def _sweep(self) -> None:
        self.alerts.workers_lost(self._sweeper.sweep().workers)
        self._agent_sweeper.sweep()

    def reload(self) -> bool:
        """Take over what has changed in the policy file. Raises PolicyInvalid, and keeps what held before."""
        return self._upkeep.reload()

    def stop(self, *, timeout_s: float = STOP_S) -> bool:
        """End all that runs; whether jobs came to their next event in time. Those that did not are left as by a crash.

        Order: jobs are given back before the worker's row goes; the audit log is signed last.
        """
        if self._background is not None:
            self._background.end()
        self.notifier.end()
        ended = self.engine.stop(timeout_s=timeout_s)
        until = self.clock.monotonic() + _LAST_S
        if self._background is not None:
            self._background.join(until)
        self.ticker.close()
        self.notifier.join(until)
        if ended and self.options.queues:
            try:
                self.workers.leave(self.engine.worker)
            except CatalogUnavailable as error:  # then others find out by its silence
                self.warn(str(error))
        if self._background is not None and self.options.own_schedules:
            self.sign_audit_log()
        return ended

    def verify_audit_log(self) -> AuditVerdict:
        """Whether the audit log is as it was written, and as the checkpoints saw it that are kept beside the key."""
        trusted = trusted_keys(self.data_dir / "audit.key", alone=self.options.embedded)
        return self.audit.verify(kept=self._kept_checkpoints(), trusted=trusted)

    def _look_at_audit_log(self) -> None:
        """Before its head is signed anew, tell when it is not what was signed before."""
        try:
            problem = self.audit.departure(self._kept_checkpoints())
        except BackstayError as error:
            problem = str(error)
        if problem:
            self.warn(f"the audit log is not what it was: {problem}; see `backstay audit verify`")

    def _kept_checkpoints(self) -> list[Checkpoint]:
        return CheckpointFile(self.data_dir / "audit.checkpoints").read()

    def sign_audit_log(self) -> None:
        """Sign its head now: at the start what a crash left unsigned, at the end all of it. A failure is warned of."""
        try:
            self._upkeep.checkpoint()
        except BackstayError as error:
            self.warn(f"signing the audit log: {error}")

    def next_runs(self, count: int) -> list[NextRun]:
        """What runs next by itself, the soonest first."""
        soonest = (
            select(ScheduleRecord)
            .where(ScheduleRecord.enabled.is_(True), ScheduleRecord.next_run_at.is_not(None))
            .order_by(ScheduleRecord.next_run_at, ScheduleRecord.id)
            .limit(count)
        )
        with self.catalog.reading() as session:
            rows = session.scalars(soonest).all()
        return [NextRun(at=row.next_run_at, policy=row.policy, type=row.type) for row in rows if row.next_run_at]

    def troubles(self) -> list[BackstayError]:
        """What keeps jobs from being run as they should; nothing if the service is ready."""
        found: list[BackstayError] = [] if self.policies.trouble is None else [self.policies.trouble]
        try:
            workers = self.workers.all()
            self.engine.holders()
        except CatalogUnavailable as error:
            return [*found, error]
        if self.options.embedded and (full := place.full_disk(self.data_dir)) is not None:
            found.append(full)
        now = self.clock.now()
        if not any(worker.lease_until > now for worker in workers):
            found.append(
                CatalogUnavailable(
                    "no worker runs jobs",
                    cause="none has told for a while that it lives",
                    hint="start one: `backstay worker --database …`",
                )
            )
        return found

    def _forget(self) -> None:
        """The queue forgets what ended long ago; its rows go when the policy file says."""
        while self.engine.forget(self.clock.now() - _FORGOTTEN):
            pass
        before = self.clock.now() - self.policies.service.jobs_kept
        clear_jobs(self.catalog, before)
        forget_states(self.data_dir, before, self.jobs)

    def _beat(self) -> None:
        self.workers.beat(self.engine.worker, host=socket.gethostname(), pid=os.getpid(), queues=self.options.queues)

    def close(self) -> None:
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _count_missed(session: Session, schedule: ScheduleRecord, why: str) -> None:
    del why  # which the schedule and the audit log tell
    count(session, MISSED, {"policy": schedule.policy})


def _worker_name(random: Random) -> str:
    """A name that no other process has, and none had before."""
    return f"{socket.gethostname()}:{os.getpid()}:{random(6).hex()}"
