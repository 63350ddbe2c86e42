"""Rows and engine that do not agree, and workers that are gone."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from backstay.catalog.database import Catalog
from backstay.catalog.models import Job
from backstay.catalog.models.jobs import DIRECT
from backstay.control.jobs.jobs import Jobs
from backstay.control.jobs.port import EngineState
from backstay.control.jobs.sweeping import Mended, Sweeper
from backstay.control.jobs.workers import Workers
from backstay.errors import CatalogUnavailable
from backstay.testing.clock import FakeClock
from tests.control.jobs.scripted import ScriptedEngine

LEASE_S = 15.0


@pytest.fixture
def kind() -> str:
    return "sqlite"


class Bench:
    def __init__(self, catalog: Catalog) -> None:
        self.catalog, self.clock, self.engine = catalog, FakeClock(), ScriptedEngine()
        self.jobs = Jobs(catalog, self.engine, self.clock)
        self.workers = Workers(catalog, self.clock, lease_s=LEASE_S)
        self.sweeper = Sweeper(catalog, self.engine, self.workers, self.clock)

    def job(self, state: EngineState, **values: object) -> str:
        job = self.jobs.create("gc", {}, actor="ann")
        with self.catalog.session() as session:
            session.execute(update(Job).where(Job.id == job.id).values(**values))
        self.engine.told.pop(job.id)
        if state != "unknown":
            self.engine.told[job.id] = state
        self.engine.submitted.clear()
        return job.id

    def sweep(self, times: int = 2) -> Mended:
        found = [self.sweeper.sweep() for _ in range(times)]
        return found[-1]

    def beat(self, worker: str) -> None:
        self.workers.beat(worker, host="h", pid=1, queues=["backup"])


@pytest.fixture
def bench(catalog: Catalog) -> Bench:
    return Bench(catalog)


@pytest.mark.parametrize(("status", "state"), [("queued", "waiting"), ("queued", "running"), ("running", "running")])
def test_what_agrees_is_left_alone(bench: Bench, status: str, state: EngineState) -> None:
    job = bench.job(state, status=status)
    assert bench.sweep(5) == Mended()
    assert bench.jobs.get(job).status == status


def test_a_job_that_the_engine_never_heard_of_is_passed_to_it(bench: Bench) -> None:
    job = bench.job("unknown", status="queued")
    assert bench.sweep(1) == Mended()  # it may be on its way just now
    assert bench.sweep(1).submitted == (job,)
    assert bench.engine.submitted == [job]


def test_a_job_that_was_given_back_says_that_it_waits(bench: Bench) -> None:
    job = bench.job("waiting", status="running", worker="gone", attempts=1)
    bench.sweep()
    assert (bench.jobs.get(job).status, bench.jobs.get(job).worker) == ("queued", None)


def test_a_running_job_that_the_engine_lost_runs_again(bench: Bench) -> None:
    job = bench.job("unknown", status="running", worker="gone", attempts=1)
    bench.sweep()
    assert (bench.jobs.get(job).status, bench.engine.submitted) == ("queued", [job])


@pytest.mark.parametrize("status", ["queued", "running"])
def test_a_job_whose_end_nobody_wrote_has_failed(bench: Bench, status: str) -> None:
    job = bench.job("done", status=status, attempts=1)
    assert bench.sweep().ended == (job,)
    row = bench.jobs.get(job)
    assert row.error is not None
    assert (row.status, row.error["code"]) == ("failed", "JobLost")


@pytest.mark.parametrize("state", ["waiting", "unknown", "cancelled"])
def test_a_wish_to_cancel_that_did_not_reach_the_engine_is_passed_on(bench: Bench, state: EngineState) -> None:
    job = bench.job(state, cancel_asked=True)
    assert bench.sweep().ended == (job,)
    assert (bench.jobs.get(job).status, bench.engine.submitted) == ("cancelled", [])


def test_a_running_job_that_the_engine_has_as_cancelled_has_ended(bench: Bench) -> None:
    job = bench.job("cancelled", status="running", attempts=1)
    bench.sweep()
    assert bench.jobs.get(job).status == "cancelled"


def test_a_row_that_changed_since_it_was_read_is_left_alone(bench: Bench) -> None:
    job = bench.job("done", status="running", attempts=1)
    bench.sweep(1)
    with bench.catalog.session() as session:
        session.execute(update(Job).where(Job.id == job).values(attempts=2))
    assert bench.sweep(1) == Mended()
    assert bench.jobs.get(job).status == "running"


def test_runs_that_no_engine_started_are_left_alone(bench: Bench) -> None:
    job = bench.job("unknown", status="running", queue=DIRECT)
    assert bench.sweep(3) == Mended()
    assert bench.jobs.get(job).status == "running"


# -- workers


def silent(bench: Bench, seconds: float, *alive: str, step: float = 3.0) -> Mended:
    """Let time pass; the last sweep."""
    found = bench.sweeper.sweep()
    for _ in range(round(seconds / step)):
        bench.clock.advance(step)
        for worker in alive:
            bench.beat(worker)
        found = bench.sweeper.sweep()
        if found.workers:
            return found
    return found


def test_the_jobs_of_a_worker_that_is_silent_go_to_others(bench: Bench) -> None:
    bench.beat("one")
    bench.beat("two")
    assert silent(bench, LEASE_S, "two").workers == ()
    assert silent(bench, 6, "two").workers == ("one",)
    assert (bench.engine.gone, [worker.id for worker in bench.workers.all()]) == (["one"], ["two"])


def test_a_clock_that_jumps_makes_nobody_seem_gone(bench: Bench) -> None:
    bench.beat("one")
    bench.sweep()
    bench.clock.jump(86400)
    bench.beat("one")
    bench.sweep()
    bench.clock.jump(-2 * 86400)
    assert bench.sweep().workers == ()


def test_who_slept_itself_does_not_take_others_for_gone(bench: Bench) -> None:
    bench.beat("one")
    bench.sweep()
    bench.clock.advance(LEASE_S * 10)
    assert bench.sweeper.sweep().workers == ()
    bench.clock.advance(3)
    bench.beat("one")
    assert bench.sweeper.sweep().workers == ()
    assert silent(bench, LEASE_S + 6).workers == ("one",)


def test_a_worker_that_wakes_up_is_there_again(bench: Bench) -> None:
    bench.beat("one")
    assert silent(bench, LEASE_S + 6).workers == ("one",)
    bench.beat("one")
    assert [worker.id for worker in bench.workers.all()] == ["one"]
    assert silent(bench, 6, "one").workers == ()


def test_one_that_has_jobs_but_never_told_that_it_lives_is_gone(bench: Bench) -> None:
    bench.engine.holding = frozenset({"stranger", "me"})
    assert bench.sweep(1).workers == ()
    assert bench.sweep(1).workers == ("stranger",)


def test_a_crash_between_giving_back_and_forgetting_a_worker_is_made_good(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.beat("one")

    def crash(self: Workers, worker: str) -> None:
        raise CatalogUnavailable("away")

    with monkeypatch.context() as broken:
        broken.setattr(Workers, "leave", crash)
        with pytest.raises(CatalogUnavailable):
            silent(bench, LEASE_S + 6)
    assert bench.sweeper.sweep().workers == ("one",)
    assert bench.engine.gone == ["one", "one"]
