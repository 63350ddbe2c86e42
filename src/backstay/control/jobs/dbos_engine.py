"""Jobs run by DBOS: on SQLite in one process, on PostgreSQL in as many as there are.

What is used of it: a durable queue, and that a job is claimed by one process with a token that a later claim makes
void. Not used, each for a reason (docs/adr/0033-jobs.md): its schedules, which run a missed time again and again; its
serializer, which is pickle, so that whoever writes to the database runs code: only ids go in, as JSON; its version of
an application, which changes with each change of the source, so that no job would survive an update; its steps, as
what jobs do can be begun again anyway; its recovery for processes that died, which is a service one pays for: `sweep`
is ours. Its internals are touched here and nowhere else.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Final, Self

from dbos import DBOS, DBOSClient, DBOSConfig, EnqueueOptions, WorkflowStatus
from dbos._serialization import DBOSPortableJSONSerializer
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from backstay.catalog.damaged_file import damaged_file, one_line, told_damage
from backstay.control.jobs.dbos_database import open_database
from backstay.control.jobs.port import Claim, EngineState, JobEngine, Released, RunJob, StopReason, Swept
from backstay.control.jobs.queues import QUEUES
from backstay.core.clock import Clock
from backstay.errors import CatalogUnavailable, JobConflict

VERSION: Final = "jobs-v1"  # to change only if jobs of the old version could not be run by the new one
EMBEDDED: Final = "embedded"  # the one process that uses a SQLite file finds its own unfinished jobs by this name
POLL_S: Final = 0.2
_NAME: Final = "backstay"
_JOB: Final = "backstay.job"
_CANCEL: Final = "cancel"
_ASK_S: Final = 0.5  # how often a running job asks whether it should end
_FIRST: Final = 1_000_000  # where DBOS begins with what is urgent, we count down from
_CHUNK: Final = 500
_PATIENCE_S: Final = 30.0  # with a thread that still runs a job which was taken from it
_AGAIN: Final = (
    "then start the service again: it begins anew what waited or ran, by its catalog, and nothing else is lost"
)
_ENDED: Final = ("SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")
_STATES: Final[dict[str, EngineState]] = {
    "ENQUEUED": "waiting",
    "DELAYED": "waiting",
    "PENDING": "running",
    "CANCELLED": "cancelled",
}


class DbosEngine(JobEngine):
    """One process's way to the queue; at most one of a process runs jobs, as DBOS is one for each process."""

    def __init__(self, database: Engine, *, worker: str, clock: Clock, poll_s: float = POLL_S) -> None:
        _hush()
        self._database, self._worker, self._clock, self._poll_s = database, worker, clock, poll_s
        self._claims: dict[str, _DbosClaim] = {}
        self._idle = threading.Condition()
        self._run: RunJob | None = None
        self._stopping = False
        self._suspects: frozenset[str] = frozenset()
        with _told(self._database):
            self._client = DBOSClient(
                system_database_engine=database,
                serializer=DBOSPortableJSONSerializer(),
                application_name=_NAME,
                lazy=True,
                retry_connection_errors=False,  # who asks for a job is told, instead of waiting for ever
            )
            self._client._sys_db.run_migrations()  # noqa: SLF001 - DBOS.migrate() opens SQLite its own way
            self._register_queues()

    @classmethod
    def open(cls, url: str, *, worker: str, clock: Clock, poll_s: float = POLL_S) -> Self:
        """The engine at `sqlite:////whole/path` or `postgresql://…`. Raises InvalidRequest, CatalogUnavailable.

        On SQLite the caller sees to it that no other process uses the file.
        """
        embedded = url.startswith("sqlite:")
        return cls(open_database(url), worker=EMBEDDED if embedded else worker, clock=clock, poll_s=poll_s)

    def _register_queues(self) -> None:
        for queue in QUEUES.values():
            self._client.register_queue(
                queue.name,
                worker_concurrency=queue.per_worker,
                # With one for each partition and no other limit that is shared, workers never collide when they claim.
                partition_concurrency=1 if queue.partitions else None,
                polling_interval_sec=self._poll_s * queue.pace,
            )

    @property
    def worker(self) -> str:
        return self._worker

    # -- asking

    def submit(
        self,
        job_id: str,
        *,
        queue: str,
        priority: int = 0,
        partition: str | None = None,
        not_before: datetime | None = None,
    ) -> None:
        options = EnqueueOptions(
            workflow_name=_JOB,
            workflow_id=job_id,
            queue_name=queue,
            app_version=VERSION,
            priority=_FIRST - max(-_FIRST, min(priority, _FIRST - 1)),
        )
        if QUEUES[queue].partitions:
            options["queue_partition_key"] = partition or job_id
        if not_before is not None and (delay := (not_before - self._clock.now()).total_seconds()) > 0:
            options["delay_seconds"] = delay
        with _told(self._database):
            self._client.enqueue(options, job_id)

    def state(self, job_id: str) -> EngineState:
        return self.states([job_id])[job_id]

    def states(self, job_ids: Sequence[str]) -> dict[str, EngineState]:
        found: dict[str, EngineState] = dict.fromkeys(job_ids, "unknown")
        for at in range(0, len(job_ids), _CHUNK):
            for status in self._statuses(workflow_ids=list(job_ids[at : at + _CHUNK])):
                found[status.workflow_id] = _STATES.get(status.status, "done")
        return found

    def cancel(self, job_id: str) -> None:
        """The wish is noted before a job that waits is taken out: one that begins just then finds it."""
        with _told(self._database):
            self._client.update_workflow_attributes(job_id, {_CANCEL: True}, merge=True)
        if self.state(job_id) == "waiting":
            with _told(self._database):
                self._client.cancel_workflow(job_id)
        if (claim := self._claims.get(job_id)) is not None:
            claim.stop("cancelled")

    def _statuses(
        self,
        *,
        workflow_ids: list[str] | None = None,
        status: str | list[str] | None = None,
        executor_id: str | None = None,
        completed_before: str | None = None,
        limit: int | None = None,
    ) -> list[WorkflowStatus]:
        with _told(self._database):
            return self._client.list_workflows(
                workflow_ids=workflow_ids,
                status=status,
                executor_id=executor_id,
                completed_before=completed_before,
                limit=limit,
                name=_JOB,
                load_input=False,
                load_output=False,
            )

    # -- running

    def start(self, run: RunJob, *, queues: Sequence[str]) -> None:
        if not _PROCESS.taken_by(self):
            raise JobConflict("jobs are run already", cause="another engine of this process runs them")
        self._run, self._stopping = run, False
        config = DBOSConfig(
            name=_NAME,
            system_database_engine=self._database,
            executor_id=self._worker,
            application_version=VERSION,
            serializer=DBOSPortableJSONSerializer(),
            use_listen_notify=False,  # nothing that it would tell of is used
            notification_listener_polling_interval_sec=0.5,  # of which only the end has to wait
            scheduler_polling_interval_sec=3600.0,
            log_level="CRITICAL",
            enable_otlp=False,
            run_migrations=True,
        )
        with _told(self._database):
            DBOS(config=config)
            DBOS.listen_queues(list(queues))
            DBOS.launch()  # which also queues again what a process of this name had not finished

    def stop(self, *, timeout_s: float) -> bool:
        """Crash order: what ends in time is given back at once; a crash before leaves it for `sweep` or `start`."""
        if self._run is None:
            return True
        self._stopping = True
        with self._idle:
            for claim in self._claims.values():
                claim.stop("stopping")
            ended = self._idle.wait_for(lambda: not self._claims, timeout=timeout_s)
        DBOS.destroy()
        self._run = None
        _PROCESS.leave()
        with suppress(CatalogUnavailable):  # then others find out by our silence, or the next process of this name
            self._give_back([self._worker], sparing=set(self._claims))
        return ended

    def close(self) -> None:
        self._client.destroy()
        self._database.dispose()

    def execute(self, job_id: str) -> None:
        """Run one job that this process has claimed; called by DBOS in a thread of its own.

        Raises Released for a job that has not ended: all other ends are final for DBOS.
        """
        claim = _DbosClaim(job_id, self._worker, self._ask, self._clock)
        try:
            if not self._take(claim) or self._stopping or self._run is None:
                raise Released
            self._run(claim)
        except (Released, CatalogUnavailable) as error:
            claim.released = True
            raise Released from error
        finally:
            with self._idle:
                if self._claims.get(job_id) is claim:
                    del self._claims[job_id]
                self._idle.notify_all()
            if claim.released and not self._stopping and claim.why != "lost":
                with suppress(CatalogUnavailable):  # then `sweep` finds that nobody runs it
                    self._queue_again(job_id, [self._worker])

    def _take(self, claim: _DbosClaim) -> bool:
        """Make it the claim that counts, after one of before has ended, which was given up while this process slept.

        False if that one does not end.
        """
        with self._idle:
            if (before := self._claims.get(claim.job_id)) is not None:
                before.stop("lost")
                if not self._idle.wait_for(lambda: self._claims.get(claim.job_id) is not before, timeout=_PATIENCE_S):
                    return False
            self._claims[claim.job_id] = claim
            return True

    def _ask(self, job_id: str) -> StopReason | None:
        found = self._statuses(workflow_ids=[job_id])
        if not found or (found[0].status != "CANCELLED" and found[0].executor_id != self._worker):
            return "lost"
        status = found[0]
        if status.status == "CANCELLED" or (status.attributes or {}).get(_CANCEL):
            return "cancelled"
        return None if status.status == "PENDING" else "lost"

    # -- sweeping

    def holders(self) -> frozenset[str]:
        return frozenset(status.executor_id for status in self._statuses(status="PENDING") if status.executor_id)

    def sweep(self, gone: Sequence[str] = ()) -> Swept:
        """A job of this process that nobody runs in two sweeps in a row was claimed, and then something failed."""
        jobs = self._give_back([worker for worker in gone if worker != self._worker])
        if self._run is not None and not self._stopping:
            mine = {status.workflow_id for status in self._statuses(status="PENDING", executor_id=self._worker)}
            idle = frozenset(mine - self._claims.keys())
            forgotten = sorted(idle & self._suspects)
            self._suspects = idle - frozenset(forgotten)
            jobs += [job_id for job_id in forgotten if self._queue_again(job_id, [self._worker])]
        return Swept(workers=tuple(gone), jobs=tuple(jobs))

    def forget(self, before: datetime) -> int:
        old = self._statuses(status=list(_ENDED), completed_before=before.isoformat(), limit=_CHUNK)
        if old:
            with _told(self._database):
                self._client.delete_workflows([status.workflow_id for status in old])
        return len(old)

    def _give_back(self, workers: Sequence[str], *, sparing: set[str] | None = None) -> list[str]:
        """Queue again what these workers have; what another has claimed meanwhile is not touched."""
        given = []
        for worker in workers:
            for status in self._statuses(status="PENDING", executor_id=worker):
                spared = sparing is not None and status.workflow_id in sparing
                if not spared and self._queue_again(status.workflow_id, [worker]):
                    given.append(status.workflow_id)
        return given

    def _queue_again(self, job_id: str, workers: list[str]) -> bool:
        """One statement that matches only while one of these workers has the job. It makes the old claim void."""
        with _told(self._database):
            return self._client._sys_db.reenqueue_for_recovery(job_id, workers, "maintenance")  # noqa: SLF001


class _DbosClaim(Claim):
    """A running job; the database is asked at most every `_ASK_S` seconds."""

    def __init__(self, job_id: str, worker: str, ask: Callable[[str], StopReason | None], clock: Clock) -> None:
        self.job_id, self.worker = job_id, worker
        self.why: StopReason | None = None
        self.released = False
        self._ask, self._clock = ask, clock
        self._asked: float | None = None  # not yet: a wish to cancel may be older than the claim

    def stop(self, why: StopReason) -> None:
        """The first reason stands, unless another process has the job."""
        if self.why is None or why == "lost":
            self.why = why

    def stop_reason(self) -> StopReason | None:
        now = self._clock.monotonic()
        if self.why is None and (self._asked is None or now - self._asked >= _ASK_S):
            self._asked = now
            try:
                found = self._ask(self.job_id)
            except CatalogUnavailable:
                return None  # nobody can tell: the work goes on, and whether it counts is decided at its end
            if found is not None:
                self.stop(found)
        return self.why


class _Process:
    """Which engine of this process DBOS works for."""

    def __init__(self) -> None:
        self.engine: DbosEngine | None = None
        self._lock = threading.Lock()

    def taken_by(self, engine: DbosEngine) -> bool:
        with self._lock:
            if self.engine is None:
                self.engine = engine
            return self.engine is engine

    def leave(self) -> None:
        with self._lock:
            self.engine = None


_PROCESS: Final = _Process()


@DBOS.workflow(name=_JOB, max_recovery_attempts=None)
def _job(job_id: str) -> None:
    """What DBOS calls; nothing is kept of what it returns."""
    engine = _PROCESS.engine
    if engine is None:
        raise Released
    engine.execute(job_id)


def _hush() -> None:
    """Nothing of what the library logs goes to the console, or anywhere: what matters is told in our own words."""
    logger = logging.getLogger("dbos")
    if not any(isinstance(handler, logging.NullHandler) for handler in logger.handlers):
        logger.addHandler(logging.NullHandler())
    logger.propagate = False
    logger.setLevel(logging.CRITICAL)


@contextmanager
def _told(database: Engine) -> Iterator[None]:
    """Failures of the database as ours."""
    title = "the queue of jobs cannot be used"
    try:
        yield
    except SQLAlchemyError as error:
        if (file := damaged_file(error, database)) is not None:
            raise told_damage(title, file, error, then=_AGAIN) from error
        raise CatalogUnavailable(title, cause=one_line(error)) from error
