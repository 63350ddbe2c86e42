"""Runs that no job engine started, as rows of the catalog beside those of jobs.

Order: the row is there, `running`, before anything is done, and gets its end after all is done. A crash between leaves
a row that says `running`; whoever opens the catalog next on this machine finds its process gone and says so in it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import select, update

from backstay.catalog.database import Catalog
from backstay.catalog.index import BackupIndex
from backstay.catalog.models.backups import Backup
from backstay.catalog.models.jobs import DIRECT, Job, JobKind
from backstay.control.jobs.failures import failure_of
from backstay.control.manager.documents import Document
from backstay.control.manager.results import RestoreRecord
from backstay.core.clock import Clock
from backstay.core.environment import user
from backstay.core.ids import Random, new_ulid
from backstay.errors import Interrupted, JobLost, NotFound
from backstay.errors.documents import problem_document
from backstay.repository.repository import Repository
from backstay.repository.sessions.session import Process, process_start

_RATES: Final = 10  # restores that an estimate looks at
_MOST_ROWS: Final = 2**63 - 1  # that a database can be asked for
_LEAST: Final = 1 << 20  # bytes of a restore that says something about speed


@dataclass(slots=True)
class Record:
    """A run that is recorded; its result is set before it ends."""

    id: str
    result: Document | None = None
    backup_id: str | None = None


class Records:
    """The manager's part of a catalog."""

    def __init__(self, catalog: Catalog, clock: Clock, *, lent: bool = False, random: Random = os.urandom) -> None:
        """A catalog that is `lent` stays open when these are closed."""
        self.catalog, self._clock, self._random = catalog, clock, random
        self._lent = lent
        self.index = BackupIndex(catalog, clock)
        self._worker = _worker(Process.current())

    @contextmanager
    def run(
        self,
        kind: JobKind,
        arguments: Mapping[str, Any],
        *,
        job_id: str | None = None,
        policy: str | None = None,
        scope: str = "/",
    ) -> Iterator[Record]:
        """Record what happens within; with `job_id` it is the run of a job, which is recorded by who runs that."""
        if job_id is not None:
            yield Record(job_id)
            return
        record = Record(new_ulid(self._clock.now_ns(), self._random))
        self._begin(record.id, kind, dict(arguments), policy, scope)
        try:
            yield record
        except Exception as error:
            failure = failure_of(error)
            status: Literal["cancelled", "failed"] = "cancelled" if isinstance(error, Interrupted) else "failed"
            self._end(record, status, problem_document(failure) | {"job_id": record.id})
            raise
        except BaseException:
            self._end(record, "cancelled", None)
            raise
        self._end(record, "succeeded", None)

    def _begin(self, ident: str, kind: JobKind, arguments: Document, policy: str | None, scope: str) -> None:
        now = self._clock.now()
        row = Job(
            id=ident,
            kind=kind,
            status="running",
            queue=DIRECT,
            policy=policy,
            scope=scope,
            actor=f"{user()}@{socket.gethostname()}",
            arguments=arguments,
            created_at=now,
            started_at=now,
            attempts=1,
            worker=self._worker,
        )
        with self.catalog.session() as session:
            session.add(row)

    def _end(self, record: Record, status: str, error: Document | None) -> None:
        values = {
            "status": status,
            "finished_at": self._clock.now(),
            "result": record.result,
            "backup_id": record.backup_id,
            "error": error,
        }
        with self.catalog.session() as session:
            session.execute(update(Job).where(Job.id == record.id).values(**values))

    def mend(self) -> None:
        """Give an end to the runs of processes of this machine that are gone."""
        running = select(Job.id, Job.worker).where(Job.queue == DIRECT, Job.status == "running")
        with self.catalog.reading() as session:
            lost = [row.id for row in session.execute(running) if _is_gone(row.worker or "")]
        error = JobLost("the run ended without a word", cause="its process is gone")
        for ident in lost:
            same = update(Job).where(Job.id == ident, Job.status == "running")
            values = {"status": "failed", "finished_at": self._clock.now(), "error": problem_document(error)}
            with self.catalog.session() as session:
                session.execute(same.values(**values))

    # -- restores

    def restores(self, *, limit: int) -> list[RestoreRecord]:
        """The restores that were recorded, newest first."""
        query = (
            select(Job)
            .where(Job.kind == "restore")
            .order_by(Job.created_at.desc(), Job.id.desc())
            .limit(min(limit, _MOST_ROWS))
        )
        with self.catalog.reading() as session:
            return [_restore_of(job) for job in session.scalars(query)]

    def restored(self, ident: str) -> Document:
        """The result of a restore, by its id. Raises NotFound."""
        with self.catalog.reading() as session:
            job = session.get(Job, ident.lower()) if ident.isascii() else None
        if job is None or job.kind != "restore" or not job.result:
            cause = "no restore has this id" if job is None or job.kind != "restore" else f"it is {job.status}"
            hint = "`list_restores` tells those that there are"
            raise NotFound(f"there is no finished restore {ident!r}", cause=cause, hint=hint)
        return dict(job.result)

    def rates(self) -> list[float]:
        """The bytes per second of the last restores."""
        query = select(Job.result).where(Job.kind == "restore", Job.status == "succeeded")
        with self.catalog.reading() as session:
            results = session.scalars(query.order_by(Job.created_at.desc()).limit(_RATES)).all()
        found = ((one.get("bytes", 0), one.get("duration_s", 0.0)) for one in results if one)
        return [size / seconds for size, seconds in found if size >= _LEAST and seconds > 0]

    # -- backups

    def made(self, repository: Repository, ids: Sequence[str], *, run: str, policy: str | None) -> None:
        """List snapshots that were just made."""
        self.index.made(repository, ids, job_id=run, policy=policy)

    def runs_of(self, ids: Sequence[str]) -> set[str | None]:
        """The runs that made these backups, as far as that is known."""
        with self.catalog.reading() as session:
            known = {
                row.id: row.job_id
                for row in session.execute(select(Backup.id, Backup.job_id).where(Backup.id.in_(ids)))
            }
        return {known.get(ulid) for ulid in ids}

    def removed(self, repository: Repository, ids: Iterable[str]) -> None:
        """Take snapshots from the list that were just deleted."""
        gone = list(ids)
        if not gone:
            return
        with self.catalog.session() as session:
            self.index.removed(session, repository, gone)

    def close(self) -> None:
        """Let go of the catalog."""
        if not self._lent:
            self.catalog.close()


def _restore_of(job: Job) -> RestoreRecord:
    result, arguments = job.result or {}, job.arguments or {}
    parts: Sequence[Document] = result.get("parts", ())
    backups = [part["backup_id"] for part in parts] or arguments.get("backups") or [job.backup_id or ""]
    return RestoreRecord(
        id=job.id,
        status=job.status,  # type: ignore[arg-type]  # the column holds nothing else
        backups=tuple(backups),
        targets=tuple(part["target"] for part in parts) or tuple(arguments.get("targets", ())),
        created_at=job.created_at,
        finished_at=job.finished_at,
        files=result.get("files", 0),
        bytes=result.get("bytes", 0),
        error=job.error,
    )


def _worker(process: Process) -> str:
    return f"{DIRECT}:{process.pid}:{process.start}:{process.boot}:{process.namespace}"


def _is_gone(worker: str) -> bool:
    """Whether the process was one of this boot of this machine, and is gone; doubt means no."""
    here = Process.current()
    parts = worker.split(":", 4)
    if len(parts) != 5 or not here.boot or (parts[3], parts[4]) != (here.boot, here.namespace):
        return False
    return process_start(int(parts[1])) != parts[2]
