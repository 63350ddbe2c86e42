"""How one job is run: what its row says at each moment, and who may write it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from backstay.catalog.database import Catalog
from backstay.catalog.models import Job
from backstay.catalog.models.base import Document
from backstay.control.jobs.execution import MOST_LINES, Execution
from backstay.control.jobs.failures import JobFailed
from backstay.control.jobs.jobs import Jobs
from backstay.control.jobs.port import Released
from backstay.control.jobs.rows import JobRows
from backstay.control.jobs.running import Runner
from backstay.core.events import Finished, Progress, Started, Warned
from backstay.errors import BackupFailed, CatalogUnavailable, Interrupted
from backstay.testing.clock import FakeClock
from tests.control.jobs.scripted import ScriptedClaim, ScriptedEngine


@pytest.fixture
def kind() -> str:
    return "sqlite"


class Bench:
    """One job, and what becomes of it when it does something."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog, self.clock, self.engine = catalog, FakeClock(), ScriptedEngine()
        self.jobs = Jobs(catalog, self.engine, self.clock)
        self.job = self.jobs.create("backup", {}, actor="ann", policy="files")
        self.claim = ScriptedClaim(self.job.id)

    def run(self, work: Callable[[Execution], Document], claim: ScriptedClaim | None = None) -> None:
        Runner(self.catalog, self.clock, lambda _, execution: work(execution))(claim or self.claim)

    @property
    def row(self) -> Job:
        return self.jobs.get(self.job.id)

    @property
    def lines(self) -> list[tuple[str, str]]:
        return [(line.level, line.message) for line in self.jobs.lines(self.job.id)]


def nothing(execution: Execution) -> Document:
    return {}


def never(execution: Execution) -> Document:
    pytest.fail("it was begun")


@pytest.fixture
def bench(catalog: Catalog) -> Bench:
    return Bench(catalog)


def test_a_job_that_goes_well(bench: Bench) -> None:
    def work(execution: Execution) -> Document:
        row = bench.row
        assert (row.status, row.worker, row.attempts, row.started_at) == ("running", "me", 1, bench.clock.now())
        bench.clock.advance(5)
        return {"backup_id": "b1", "backups": ["b1"]}

    bench.run(work)
    row = bench.row
    assert (row.status, row.backup_id, row.error, row.finished_at) == ("succeeded", "b1", None, bench.clock.now())
    assert row.result == {"backup_id": "b1", "backups": ["b1"]}


def test_a_job_that_has_ended_is_not_done_again(bench: Bench) -> None:
    bench.run(nothing)
    bench.run(never)
    assert bench.row.attempts == 1


def test_a_failure_of_ours_is_a_problem_document(bench: Bench) -> None:
    def work(execution: Execution) -> Document:
        raise BackupFailed("it broke", cause="a disk", hint="mend it")

    bench.run(work)
    row = bench.row
    assert row.status == "failed"
    assert row.error is not None
    assert {
        "code": "BackupFailed",
        "cause": "a disk",
        "solution": "mend it",
        "job_id": row.id,
    }.items() <= row.error.items()
    assert bench.lines == [("error", "it broke: a disk")]


def test_a_failure_may_have_something_to_show(bench: Bench) -> None:
    def work(execution: Execution) -> Document:
        raise JobFailed(BackupFailed("one source broke"), {"backups": ["b2"], "backup_id": "b2"})

    bench.run(work)
    assert (bench.row.status, bench.row.backup_id) == ("failed", "b2")


def test_a_mistake_of_the_program_ends_the_job_with_its_trace_in_the_log(bench: Bench) -> None:
    def work(execution: Execution) -> Document:
        raise ZeroDivisionError("oh")

    bench.run(work)
    assert bench.row.error is not None
    assert bench.row.error["code"] == "InternalError"
    assert "Traceback" in bench.lines[0][1]


def test_a_cancelled_job_ends_at_its_next_event_whatever_the_work_makes_of_it(bench: Bench) -> None:
    def work(execution: Execution) -> Document:
        bench.claim.why = "cancelled"
        try:
            execution.events(Progress(files=1, bytes=2))
        except Interrupted as error:
            raise BackupFailed("it was interrupted") from error
        pytest.fail("not interrupted")

    bench.run(work)
    assert (bench.row.status, bench.row.error) == ("cancelled", None)


def test_a_wish_in_the_row_is_enough_to_end_a_job(bench: Bench) -> None:
    def work(execution: Execution) -> Document:
        bench.engine.broken = True
        bench.jobs.cancel(bench.job.id, "ben")
        bench.clock.advance(2)
        execution.checkpoint()
        pytest.fail("not interrupted")

    bench.run(work)
    assert bench.row.status == "cancelled"


def test_a_job_that_was_cancelled_before_it_began_does_nothing(bench: Bench) -> None:
    bench.engine.broken = True
    bench.jobs.cancel(bench.job.id, "ben")
    bench.run(never)
    assert bench.row.status == "cancelled"


def test_a_process_that_stops_gives_its_job_back_as_if_it_had_not_begun(bench: Bench) -> None:
    def work(execution: Execution) -> Document:
        bench.claim.why = "stopping"
        execution.checkpoint()
        return {}

    with pytest.raises(Released):
        bench.run(work)
    assert (bench.row.status, bench.row.attempts, bench.row.worker) == ("queued", 0, None)


def test_one_who_was_thought_dead_cannot_write_into_the_row_of_another(bench: Bench) -> None:
    other = ScriptedClaim(bench.job.id, "other")

    def taken_over(execution: Execution) -> Document:
        bench.run(lambda _: {"by": "other"}, other)
        bench.clock.advance(2)
        execution.progress({"by": "me"})
        assert execution.why == "lost"
        return {"by": "me"}

    with pytest.raises(Released):
        bench.run(taken_over)
    assert (bench.row.result, bench.row.progress, bench.row.attempts) == ({"by": "other"}, None, 2)


def test_one_who_lost_a_job_that_still_runs_is_interrupted(bench: Bench) -> None:
    def taken_over(execution: Execution) -> Document:
        assert JobRows(bench.catalog, bench.clock).begin(bench.job.id, "other") is not None
        bench.clock.advance(2)
        execution.checkpoint()
        pytest.fail("not interrupted")

    with pytest.raises(Released):
        bench.run(taken_over)
    assert (bench.row.status, bench.row.worker) == ("running", "other")


def test_a_job_that_kills_its_workers_fails_after_some_attempts(bench: Bench) -> None:
    rows = JobRows(bench.catalog, bench.clock)
    for _ in range(5):
        rows.begin(bench.job.id, "killed")
    bench.run(never)
    assert bench.row.status == "failed"
    assert bench.row.error is not None
    assert bench.row.error["code"] == "JobLost"


def test_a_catalog_that_is_away_at_the_end_lets_the_job_run_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*args: object, **values: object) -> bool:
        raise CatalogUnavailable("away")

    monkeypatch.setattr(JobRows, "end", away)
    with pytest.raises(Released):
        bench.run(nothing)
    assert bench.row.status == "running"


@pytest.mark.parametrize("kept", [False, True])
def test_a_catalog_that_is_away_in_the_middle_lets_the_job_run_again(bench: Bench, kept: bool) -> None:
    def work(_: Execution) -> Document:
        away = CatalogUnavailable("away")
        raise JobFailed(away, {"backups": ["b1"]}) if kept else away

    with pytest.raises(Released):
        bench.run(work)
    assert (bench.row.status, bench.row.error) == ("running", None)
    bench.run(nothing)
    assert (bench.row.status, bench.row.attempts) == ("succeeded", 2)


def test_events_become_progress_and_lines(bench: Bench) -> None:
    seen: list[Document | None] = []

    def work(execution: Execution) -> Document:
        execution.events(Started(operation="backup", total_files=10))
        bench.clock.advance(2)
        execution.events(Progress(files=4, bytes=100, current="/a"))
        seen.append(bench.row.progress)
        execution.events(Progress(files=5, bytes=120))  # too soon to be written
        seen.append(bench.row.progress)
        execution.events(Warned(message="unreadable", path="/b"))
        execution.events(Finished(operation="backup"))
        return {}

    bench.run(work)
    begun = {"stage": "backup", "total_files": 10, "total_bytes": None}
    assert seen == [begun | {"files": 4, "bytes": 100, "current": "/a"}] * 2
    assert bench.row.progress == begun | {"files": 5, "bytes": 120, "current": ""}
    assert bench.lines == [
        ("info", "backup began"), ("warning", "/b: unreadable"), ("info", "backup ended")
    ]  # fmt: skip


def test_other_threads_tell_but_are_not_interrupted(bench: Bench) -> None:
    def work(execution: Execution) -> Document:
        bench.claim.why = "cancelled"
        thread = threading.Thread(target=execution.events, args=(Warned(message="from a thread"),))
        thread.start()
        thread.join()
        return {"all": "done"}

    bench.run(work)
    assert (bench.row.status, bench.lines) == ("succeeded", [("warning", "from a thread")])


def test_a_thread_that_waits_for_a_program_asks_whether_to_go_on(bench: Bench) -> None:
    def work(execution: Execution) -> Document:
        bench.claim.why = "cancelled"
        with ThreadPoolExecutor(1) as threads:
            threads.submit(execution.checkpoint).result()
        pytest.fail("it went on")

    bench.run(work)
    assert bench.row.status == "cancelled"


def test_a_flood_of_lines_is_cut(bench: Bench) -> None:
    def work(execution: Execution) -> Document:
        for number in range(MOST_LINES * 2):
            execution.log("info", f"{number} " + "x" * 10_000)
        return {}

    bench.run(work)
    lines = bench.jobs.lines(bench.job.id, limit=10_000)
    assert len(lines) == MOST_LINES
    assert "left out" in lines[-1].message
    assert max(len(line.message) for line in lines) <= 4000
