"""Jobs that ended long ago go, with all that hangs on them; what somebody still needs stays."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from backstay.catalog.audit import AuditLog
from backstay.catalog.database import Catalog
from backstay.catalog.models import AuditEntry, Job, JobLine, ScheduleRecord
from backstay.control.jobs.clearing import clear_jobs
from backstay.control.jobs.jobs import Jobs
from backstay.control.scheduling.schedules import Schedules
from backstay.control.scheduling.specs import ScheduleSpec
from backstay.testing.clock import FakeClock
from tests.control.jobs.scripted import ScriptedEngine


class Rows:
    """Jobs that ended some days ago."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog, self.clock = catalog, FakeClock()
        self.now = self.clock.now()
        self.jobs = Jobs(catalog, ScriptedEngine(), self.clock)

    def ended(self, days: float, **values: object) -> str:
        """A job of a policy that succeeded so many days ago, and was told of."""
        job = self.jobs.create("backup", {}, actor="ann", policy="files")
        at = self.now - timedelta(days=days)
        told = {"created_at": at, "finished_at": at, "settled_at": at, "status": "succeeded"} | values
        with self.catalog.session() as session:
            session.execute(update(Job).where(Job.id == job.id).values(**told))
            session.add(JobLine(job_id=job.id, time=at, level="info", message="it ran"))
        return job.id

    def clear(self) -> int:
        return clear_jobs(self.catalog, self.now - timedelta(days=90))

    def left(self) -> set[str]:
        with self.catalog.reading() as session:
            lines, jobs = set(session.scalars(select(JobLine.job_id))), set(session.scalars(select(Job.id)))
        assert lines == jobs
        return jobs


@pytest.fixture
def rows(catalog: Catalog) -> Rows:
    return Rows(catalog)


def test_old_jobs_go_with_their_logs_and_the_audit_log_stays(rows: Rows) -> None:
    with rows.catalog.session() as session:
        AuditLog(rows.catalog, rows.clock).record(
            session, actor="ann", action="backup.create", object="job/x", outcome="allow"
        )
    old = {rows.ended(91 + number) for number in range(4)}
    new = {rows.ended(89), rows.ended(0)}
    assert rows.left() == old | new
    assert rows.clear() == 4
    assert rows.left() == new
    assert rows.clear() == 0
    with rows.catalog.reading() as session:
        assert session.scalar(select(func.count()).select_from(AuditEntry)) == 1


def test_what_is_needed_stays_however_old_it_is(rows: Rows) -> None:
    schedule = Schedules(rows.catalog, rows.clock).create(ScheduleSpec(name="s", policy="files", cron="0 0 29 2 *"))
    stays = {
        rows.ended(500, status="running", finished_at=None, settled_at=None),
        rows.ended(500, status="queued", finished_at=None, settled_at=None),
        rows.ended(500, settled_at=None),
        (last := rows.ended(500)),
        rows.ended(300),  # the last end of its kind and policy
        rows.ended(400, policy="rare", status="failed"),
        rows.ended(400, policy=None, kind="gc"),
    }
    rows.ended(320, status="failed")
    rows.ended(100, status="cancelled")
    rows.ended(401, policy=None, kind="gc")
    with rows.catalog.session() as session:
        session.execute(update(ScheduleRecord).where(ScheduleRecord.id == schedule.id).values(last_job_id=last))
    assert rows.clear() == 3
    assert rows.left() == stays


def test_a_job_that_was_asked_for_long_ago_and_ended_lately_stays(rows: Rows) -> None:
    rows.ended(0)
    late = rows.ended(200, finished_at=rows.now - timedelta(days=2), status="cancelled")
    assert rows.clear() == 0
    assert late in rows.left()


def test_many_processes_clear_many_batches(
    rows: Rows, catalog_url: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("backstay.control.jobs.clearing._AT_ONCE", 3)
    newest = rows.ended(0)
    for number in range(20):
        rows.ended(100 + number)
    before = rows.now - timedelta(days=90)
    catalogs = [Catalog.open(catalog_url) for _ in range(3)]
    with ThreadPoolExecutor(3) as threads:
        done = list(threads.map(lambda catalog: clear_jobs(catalog, before), catalogs))
    for catalog in catalogs:
        catalog.close()
    rest = rows.clear()  # a batch that is short because others have the rest ends a round: the next takes it
    assert sum(done) + rest == 20, kind
    assert rows.left() == {newest}


def test_a_dry_run_does_not_stand_for_the_last_run(rows: Rows) -> None:
    rows.ended(500)
    stays = {rows.ended(400, status="failed"), rows.ended(300, arguments={"dry_run": True})}
    # A dry run is no last run either: it goes when a run comes after it.
    assert rows.clear() == 1
    assert rows.left() == stays
    later = rows.ended(200, arguments={"dry_run": False})
    assert rows.clear() == 2
    assert rows.left() == {later}
