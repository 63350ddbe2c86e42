"""What every engine promises, tried on each."""

from __future__ import annotations

from datetime import datetime, timedelta

from backstay.control.jobs.port import Claim, Released
from backstay.control.jobs.queues import QUEUES
from backstay.core.clock import SystemClock
from tests.control.jobs.conftest import OpenEngine
from tests.control.jobs.recording import Recording, eventually

NAMES = tuple(QUEUES)


def test_what_was_submitted_runs_once_however_often_it_was_submitted(open_engine: OpenEngine) -> None:
    engine, run = open_engine(), Recording()
    for _ in range(3):
        engine.submit("a", queue="restore")
    engine.start(run, queues=NAMES)
    engine.submit("a", queue="restore")
    engine.submit("b", queue="backup", partition="p")
    eventually(lambda: engine.state("a") == engine.state("b") == "done")
    engine.submit("a", queue="restore")
    engine.submit("c", queue="notify")
    eventually(lambda: engine.state("c") == "done")
    assert sorted(run.begun) == ["a", "b", "c"]


def test_an_engine_that_runs_nothing_takes_jobs_for_one_that_does(open_engine: OpenEngine) -> None:
    asking, running, run = open_engine("w1"), open_engine("w2"), Recording()
    asking.submit("a", queue="verify")
    assert asking.state("a") == "waiting"
    running.start(run, queues=NAMES)
    eventually(lambda: asking.state("a") == "done")


def test_a_process_runs_only_jobs_of_its_queues(open_engine: OpenEngine) -> None:
    engine, run = open_engine(), Recording()
    engine.submit("a", queue="backup")
    engine.submit("b", queue="verify")
    engine.start(run, queues=["verify"])
    eventually(lambda: engine.state("b") == "done")
    assert (run.begun, engine.state("a")) == (["b"], "waiting")


def test_a_job_that_was_cancelled_while_it_waited_never_starts(open_engine: OpenEngine) -> None:
    engine, run = open_engine(), Recording()
    engine.submit("a", queue="verify")
    engine.submit("b", queue="verify")
    engine.cancel("a")
    assert engine.state("a") == "cancelled"
    engine.start(run, queues=NAMES)
    eventually(lambda: engine.state("b") == "done")
    assert run.begun == ["b"]


def test_a_running_job_learns_that_it_was_cancelled_by_another_process(open_engine: OpenEngine) -> None:
    engine, other, run = open_engine("w1"), open_engine("w2"), Recording("a")
    engine.start(run, queues=NAMES)
    engine.submit("a", queue="restore")
    eventually(lambda: run.begun)
    other.cancel("a")
    eventually(lambda: run.ended == [("a", "cancelled")])
    eventually(lambda: engine.state("a") == "done")


def test_to_cancel_what_has_ended_or_is_unknown_changes_nothing(open_engine: OpenEngine) -> None:
    engine, run = open_engine(), Recording()
    engine.start(run, queues=NAMES)
    engine.submit("a", queue="restore")
    eventually(lambda: engine.state("a") == "done")
    engine.cancel("a")
    engine.cancel("never")
    assert engine.states(["a", "never"]) == {"a": "done", "never": "unknown"}


def test_what_is_urgent_goes_first(open_engine: OpenEngine) -> None:
    engine, run = open_engine(), Recording()
    for name, priority in (("slow", -5), ("later", 0), ("soon", 7)):
        engine.submit(name, queue="verify", priority=priority)
    engine.start(run, queues=NAMES)
    eventually(lambda: len(run.ended) == 3)
    assert run.begun == ["soon", "later", "slow"]


def test_jobs_of_one_partition_run_one_after_the_other(open_engine: OpenEngine) -> None:
    engine, run = open_engine(), Recording("a", "b", "c")
    for name, partition in (("a", "p"), ("b", "p"), ("c", "other")):
        engine.submit(name, queue="backup", partition=partition)
    engine.start(run, queues=NAMES)
    eventually(lambda: len(run.begun) == 2)
    assert "c" in run.begun
    waiting = ({"a", "b"} - set(run.begun)).pop()
    assert engine.state(waiting) == "waiting"
    run.let_go()
    eventually(lambda: engine.state(waiting) == "done")


def test_a_process_runs_no_more_jobs_at_once_than_its_queue_has_room_for(open_engine: OpenEngine) -> None:
    engine, names = open_engine(), [f"n{i}" for i in range(5)]
    run = Recording(*names)
    for name in names:
        engine.submit(name, queue="restore")
    engine.start(run, queues=NAMES)
    eventually(lambda: len(run.begun) == 2)
    run.let_go()
    eventually(lambda: len(run.ended) == 5)
    assert run.most_at_once == 2


def test_a_job_waits_until_its_time_has_come(open_engine: OpenEngine) -> None:
    engine, now = open_engine(), SystemClock().now()
    begun: dict[str, datetime] = {}

    def run(claim: Claim) -> None:
        begun[claim.job_id] = SystemClock().now()

    engine.start(run, queues=NAMES)
    engine.submit("later", queue="restore", not_before=now + timedelta(seconds=1.5))
    engine.submit("much later", queue="restore", not_before=now + timedelta(days=1))
    engine.submit("past", queue="restore", not_before=now - timedelta(days=1))
    eventually(lambda: engine.state("past") == "done")
    eventually(lambda: engine.state("later") == "done")
    assert [*begun] == ["past", "later"]
    assert begun["later"] - now > timedelta(seconds=1.4)
    assert engine.state("much later") == "waiting"


def test_stopping_lets_a_job_end_that_ends_in_time(open_engine: OpenEngine) -> None:
    engine = open_engine()
    begun, ended = list[str](), list[str]()

    def run(claim: Claim) -> None:
        begun.append(claim.job_id)
        eventually(lambda: claim.stop_reason() == "stopping")
        ended.append(claim.job_id)

    engine.start(run, queues=NAMES)
    engine.submit("a", queue="restore")
    eventually(lambda: begun)
    assert engine.stop(timeout_s=30)
    assert (ended, engine.state("a")) == (["a"], "done")


def test_a_job_that_was_given_back_is_run_by_the_next_process(open_engine: OpenEngine) -> None:
    first, run = open_engine("w1"), Recording("a", "b")
    first.start(run, queues=NAMES)
    first.submit("a", queue="restore")
    first.submit("b", queue="restore")
    first.submit("waits", queue="restore")
    eventually(lambda: len(run.begun) == 2)
    assert first.stop(timeout_s=30)
    assert first.states(["a", "b", "waits"]) == {"a": "waiting", "b": "waiting", "waits": "waiting"}
    second, again = open_engine("w2"), Recording()
    second.start(again, queues=NAMES)
    eventually(lambda: len(again.ended) == 3)
    assert set(again.begun) == {"a", "b", "waits"}


def test_a_job_that_is_given_back_for_another_reason_is_run_again_by_the_same_process(open_engine: OpenEngine) -> None:
    engine, begun = open_engine(), list[str]()

    def run(claim: Claim) -> None:
        begun.append(claim.job_id)
        if len(begun) < 3:
            raise Released

    engine.start(run, queues=NAMES)
    engine.submit("a", queue="maintenance")
    eventually(lambda: engine.state("a") == "done")
    assert begun == ["a"] * 3


def test_what_ended_long_ago_is_forgotten_and_what_has_not_is_not(open_engine: OpenEngine) -> None:
    engine, run = open_engine(), Recording("runs")
    engine.submit("waits", queue="notify")
    engine.submit("cancelled", queue="notify")
    engine.cancel("cancelled")
    engine.submit("ended", queue="restore")
    engine.submit("runs", queue="restore")
    engine.start(run, queues=["restore"])
    eventually(lambda: engine.state("ended") == "done" and run.begun)
    now = SystemClock().now()
    assert engine.forget(now - timedelta(days=1)) == 0
    assert engine.forget(now + timedelta(minutes=1)) == 2
    assert engine.forget(now + timedelta(minutes=1)) == 0
    assert engine.states(["waits", "cancelled", "ended", "runs"]) == {
        "waits": "waiting", "cancelled": "unknown", "ended": "unknown", "runs": "running",
    }  # fmt: skip


def test_a_failure_that_nobody_handled_ends_the_job_and_not_the_worker(open_engine: OpenEngine) -> None:
    engine = open_engine()

    def run(claim: object) -> None:
        raise ValueError("not handled")

    engine.start(run, queues=NAMES)
    for name in ("a", "b", "c", "d"):
        engine.submit(name, queue="restore")
    eventually(lambda: set(engine.states(["a", "b", "c", "d"]).values()) == {"done"})
