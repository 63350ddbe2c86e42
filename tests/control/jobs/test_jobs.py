"""Jobs as people see them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from backstay.catalog.database import Catalog
from backstay.catalog.models import Job, JobLine
from backstay.control.jobs.jobs import JobFilters, Jobs
from backstay.core.ids import new_ulid
from backstay.errors import InvalidRequest, JobConflict, NotFound
from backstay.testing.clock import FakeClock
from tests.control.jobs.scripted import ScriptedEngine


@pytest.fixture
def kind() -> str:
    return "sqlite"


class World:
    def __init__(self, catalog: Catalog) -> None:
        self.catalog, self.engine, self.clock = catalog, ScriptedEngine(), FakeClock()
        self.jobs = Jobs(catalog, self.engine, self.clock)

    def ask(self, **more: object) -> Job:
        self.clock.advance(1)
        return self.jobs.create("backup", {}, **{"actor": "ann", "policy": "files", **more})  # type: ignore[arg-type]

    def become(self, job: Job, status: str) -> None:
        with self.catalog.session() as session:
            session.execute(update(Job).where(Job.id == job.id).values(status=status))


@pytest.fixture
def world(catalog: Catalog) -> World:
    return World(catalog)


def test_a_new_job_waits_in_the_queue_of_its_kind(world: World) -> None:
    job = world.ask()
    assert (job.status, job.queue, world.engine.told) == ("queued", "backup", {job.id: "waiting"})
    assert world.jobs.get(job.id).created_at == world.clock.now()


def test_a_job_that_has_an_id_is_made_once(world: World) -> None:
    ident = new_ulid(world.clock.now_ns())
    first = world.ask(job_id=ident)
    again = world.ask(job_id=ident, policy="other")
    assert (again.id, again.policy) == (first.id, "files")
    assert len(world.jobs.page(JobFilters()).items) == 1


def test_what_is_written_with_a_job_is_not_written_without_it(world: World) -> None:
    def within(session: Session) -> None:
        session.add(JobLine(job_id=ident, time=world.clock.now(), level="info", message="asked for"))

    def refuse(session: Session) -> None:
        raise InvalidRequest("no")

    ident = new_ulid(world.clock.now_ns())
    with pytest.raises(InvalidRequest):
        world.ask(job_id=ident, within=refuse)
    assert (world.engine.submitted, world.jobs.page(JobFilters()).items) == ([], ())
    world.ask(job_id=ident, within=within)
    assert [line.message for line in world.jobs.lines(ident)] == ["asked for"]


def test_a_job_is_kept_when_the_engine_cannot_be_reached(world: World) -> None:
    world.engine.broken = True
    assert world.jobs.get(world.ask().id).status == "queued"


@pytest.mark.parametrize("ident", ["nope", "", "01m8jwt8jfwgzee334002aaxjh", "../x", "0" * 400])
def test_an_unknown_job_is_not_found(world: World, ident: str) -> None:
    with pytest.raises(NotFound):
        world.jobs.get(ident)
    with pytest.raises(NotFound):
        world.jobs.cancel(ident, "ann")
    with pytest.raises(NotFound):
        world.jobs.lines(ident)


def test_a_job_that_waits_is_cancelled_at_once_and_a_second_time_changes_nothing(world: World) -> None:
    job = world.ask()
    done = world.jobs.cancel(job.id, "ben")
    assert (done.status, done.finished_at, world.engine.told) == ("cancelled", world.clock.now(), {job.id: "cancelled"})
    assert world.jobs.cancel(job.id, "ben").status == "cancelled"
    assert [line.message for line in world.jobs.lines(job.id)] == ["ben asked for its end"]


def test_a_running_job_is_asked_to_end(world: World) -> None:
    job = world.ask()
    world.become(job, "running")
    world.engine.told[job.id] = "running"
    asked = world.jobs.cancel(job.id, "ben")
    assert (asked.status, asked.cancel_asked, world.engine.cancelled) == ("running", True, [job.id])


def test_a_wish_to_cancel_is_kept_when_the_engine_cannot_be_reached(world: World) -> None:
    job = world.ask()
    world.engine.broken = True
    asked = world.jobs.cancel(job.id, "ben")
    assert (asked.status, asked.cancel_asked) == ("queued", True)


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_a_job_that_has_ended_cannot_be_cancelled(world: World, status: str) -> None:
    job = world.ask()
    world.become(job, status)
    with pytest.raises(JobConflict, match="ended already"):
        world.jobs.cancel(job.id, "ben")


def test_a_run_that_no_engine_started_cannot_be_cancelled(world: World) -> None:
    job = world.ask(queue="direct")
    with pytest.raises(JobConflict, match="cannot be cancelled from here"):
        world.jobs.cancel(job.id, "ben")
    assert not world.jobs.get(job.id).cancel_asked


def test_jobs_are_listed_newest_first_page_by_page_and_filtered(world: World) -> None:
    jobs = [world.ask(policy=f"p{number % 3}", scope=f"/policy/p{number % 3}") for number in range(7)]
    world.become(jobs[0], "failed")
    seen, cursor = list[str](), None
    while True:
        page = world.jobs.page(JobFilters(), 3, cursor)
        seen += [job.id for job in page.items]
        if (cursor := page.next) is None:
            break
    assert seen == [job.id for job in reversed(jobs)]

    def found(**filters: object) -> list[str]:
        return [job.id for job in world.jobs.page(JobFilters(**filters)).items]  # type: ignore[arg-type]

    assert found(policy="p0") == found(scopes=["/policy/p0"]) == [jobs[6].id, jobs[3].id, jobs[0].id]
    assert found(status="failed") == [jobs[0].id]
    assert found(status=("failed", "queued"), since=jobs[5].created_at) == [jobs[6].id, jobs[5].id]
    assert found(until=jobs[1].created_at, kinds=["backup"]) == [jobs[0].id]
    assert found(kinds=["gc"]) == found(scopes=[]) == found(actor="ben") == []
    with pytest.raises(InvalidRequest):
        world.jobs.page(JobFilters(), 3, "forged")


def test_a_watcher_sees_each_change_and_is_told_that_nothing_happens(world: World) -> None:
    job = world.ask()
    seen: list[str | None] = []
    for state in world.jobs.changes(job.id, 60, quiet_s=5):
        seen.append(None if state is None else state.status)
        if len(seen) == 2:
            world.become(job, "running")
        if len(seen) == 3:
            world.become(job, "succeeded")
    assert seen == ["queued", None, "running", "succeeded"]


def test_a_watcher_is_let_go_when_its_time_is_up(world: World) -> None:
    began = world.clock.now()
    job = world.ask()
    assert [state and state.status for state in world.jobs.changes(job.id, 10)] == ["queued"]
    assert world.clock.now() - began < timedelta(seconds=15)


def test_the_catalog_of_a_directory_is_for_its_owner_alone(world: World, tmp_path: Path) -> None:
    assert (tmp_path / "catalog.db").stat().st_mode & 0o777 == 0o600
