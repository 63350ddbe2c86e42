"""The laws of agents' jobs: each is run by its agent alone, by one process at a time, and none waits for ever."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NoReturn

import pytest

from backstay.catalog.database import Catalog
from backstay.catalog.models import Job, User
from backstay.control.agents.desk import Desk, Handed
from backstay.control.agents.processes import AgentProcesses, Caller, last_seen
from backstay.control.agents.sweeping import AgentSweeper
from backstay.control.agents.work import Work, programs_of, work_of
from backstay.control.jobs.jobs import Jobs
from backstay.control.jobs.running import MOST_ATTEMPTS
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.runs.run import RunOptions, World, run_policy
from backstay.errors import InvalidRequest, NotFound
from backstay.testing import FakeClock
from tests.control.jobs.scripted import ScriptedEngine
from tests.control.policies.files import loaded

LEASE_S = 60.0
ENVIRON = {"SECRET": "not-to-be-seen"}
FILE = """
backup_manager:
  scheduling: {timezone: Europe/Berlin}
  retention: {keep_daily: 7}
  encryption: {provider: password, password: "${SECRET}"}
policies:
  web:
    agent: web-1
    sources: [{type: filesystem, paths: [/srv/web], exclude: ["*.tmp"]}]
    schedule: {full: "0 3 * * *"}
  db:
    agent: web-1
    sources: [{type: postgresql, connection: "postgresql://me@localhost/shop"}]
    hooks: {before: [{command: [/bin/prepare, now]}]}
    verification: {each_run: true, min_bytes: 1M}
  here:
    sources: [{type: filesystem, paths: [/srv/web]}]
"""


def never() -> NoReturn:
    raise AssertionError("nothing is opened, and nothing is run")


NOWHERE = World(
    prepare=never, open=never, watching=never, clock=FakeClock(), environ={}, warn=print, scratch=Path("/nowhere")
)


def caller(agent: str = "web-1", instance: str = "0" * 12) -> Caller:
    return Caller(agent=agent, user_id=agent, instance=instance, host="h", version="1.0")


class Bench:
    def __init__(self, catalog: Catalog) -> None:
        self.catalog, self.clock = catalog, FakeClock()
        self.policies: LoadedPolicies | None = loaded(FILE, ENVIRON)
        self.engine = ScriptedEngine()
        self.jobs = Jobs(catalog, self.engine, self.clock, agent_of=self.agent_of)
        self.processes = AgentProcesses(catalog, self.clock, lease_s=LEASE_S)
        self.desk = Desk(catalog, self.clock, self.processes, lambda: self.policies)
        self.sweeper = AgentSweeper(catalog, self.clock, self.processes)
        with catalog.session() as session:
            for name in ("web-1", "mail-1"):
                session.add(User(id=name, name=name, kind="agent", disabled=False, created_at=self.clock.now()))

    def agent_of(self, policy: str) -> str | None:
        return None if self.policies is None else self.policies.policy(policy).agent

    def ask(self, policy: str = "web", **more: object) -> str:
        self.clock.advance(1)
        return self.jobs.create("backup", {}, actor="ann", policy=policy, **more).id  # type: ignore[arg-type]

    def take(self, who: Caller | None = None) -> Handed | None:
        return self.desk.take(who or caller())

    def job(self, ident: str) -> Job:
        return self.jobs.get(ident)

    def end(self, ident: str, attempt: int, who: Caller | None = None, status: str = "succeeded") -> bool:
        return self.desk.end(
            who or caller(),
            ident,
            attempt,
            status,  # type: ignore[arg-type]
            lines=[],
            progress=None,
            result={"backup_id": None},
            error=None,
        )

    def pass_time(self, seconds: float) -> tuple[str, ...]:
        """Let time pass while the service looks; what it gave back."""
        given: tuple[str, ...] = ()
        for _ in range(round(seconds / 10)):
            self.clock.advance(10)
            given += self.sweeper.sweep()
        return given


@pytest.fixture
def bench(new_catalog: Catalog) -> Bench:
    return Bench(new_catalog)


def taken(handed: Handed | None) -> tuple[str, int]:
    assert handed is not None
    return handed.tenure.job_id, handed.tenure.attempt


def test_backups_of_an_agents_policy_are_for_it_alone_and_all_others_for_workers(bench: Bench) -> None:
    job = bench.ask()
    assert bench.engine.submitted == []
    assert (bench.job(job).queue, bench.job(job).agent) == ("agents", "web-1")
    assert bench.take(caller("mail-1")) is None
    assert not bench.desk.has_work("mail-1")
    assert bench.desk.has_work("web-1")
    assert taken(bench.take()) == (job, 1)
    others = bench.ask("here"), bench.jobs.create("prune", {}, actor="ann", policy="web").id
    assert [bench.job(one).agent for one in others] == [None, None]
    assert len(bench.engine.submitted) == 2


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_most_urgent_goes_first_and_a_policy_never_overlaps_itself(bench: Bench) -> None:
    first, second, urgent = bench.ask(), bench.ask(), bench.ask("db", priority=5)
    assert taken(bench.take()) == (urgent, 1)
    other = caller(instance="1" * 12)
    assert taken(bench.take(other)) == (first, 1)
    assert bench.take(caller(instance="2" * 12)) is None  # the second one waits for the first of the same policy
    assert bench.end(first, 1, other)
    assert taken(bench.take(other)) == (second, 1)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_two_processes_never_get_the_same_job(bench: Bench) -> None:
    wanted = {bench.ask("db"), bench.ask("web")}
    found: list[str] = []
    begin = threading.Barrier(4)

    def fetch(number: int) -> None:
        begin.wait()
        if (handed := bench.take(caller(instance=str(number) * 12))) is not None:
            found.append(handed.tenure.job_id)

    threads = [threading.Thread(target=fetch, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(wanted)


def test_a_job_that_was_handed_out_and_not_heard_of_is_handed_out_again(bench: Bench) -> None:
    job = bench.ask()
    assert taken(bench.take()) == (job, 1)
    assert taken(bench.take()) == (job, 2)
    assert not bench.end(job, 1)  # who has the first answer after all does not count any more
    assert bench.end(job, 2)


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_job_of_a_process_that_is_silent_is_given_back_and_its_words_count_no_more(bench: Bench) -> None:
    job = bench.ask()
    bench.take()
    assert bench.pass_time(LEASE_S - 10) == ()
    assert bench.desk.note(caller(), job, 1, {"files": 1}, []) is False
    assert bench.pass_time(LEASE_S - 10) == ()
    assert bench.pass_time(2 * LEASE_S) == (job,)
    assert bench.job(job).status == "queued"
    assert bench.desk.note(caller(), job, 1, {"files": 2}, []) is None
    assert not bench.end(job, 1)
    assert taken(bench.take(caller(instance="1" * 12))) == (job, 2)


def test_a_server_that_was_itself_asleep_takes_nobody_for_gone(bench: Bench) -> None:
    bench.ask()
    bench.take()
    bench.sweeper.sweep()
    bench.clock.advance(100 * LEASE_S)
    assert bench.sweeper.sweep() == ()


def test_a_job_whose_process_has_no_row_is_given_back(bench: Bench) -> None:
    job = bench.ask()
    bench.take()
    with bench.catalog.session() as session:
        session.execute(User.__table__.delete().where(User.name == "web-1"))  # type: ignore[attr-defined]
    assert bench.sweeper.sweep() == ()  # it may be about to write it
    assert bench.sweeper.sweep() == (job,)


def test_a_job_that_never_comes_to_an_end_is_given_up(bench: Bench) -> None:
    job = bench.ask()
    for attempt in range(1, MOST_ATTEMPTS + 1):
        assert taken(bench.take()) == (job, attempt)
    assert bench.take() is None
    ended = bench.job(job)
    assert (ended.status, (ended.error or {})["code"]) == ("failed", "JobLost")


def test_an_end_is_written_once_and_may_be_told_twice(bench: Bench) -> None:
    job = bench.ask()
    bench.take()
    assert bench.end(job, 1)
    assert bench.end(job, 1, status="failed")  # an answer got lost: the first word holds
    assert bench.job(job).status == "succeeded"


def test_what_is_given_back_on_purpose_counts_as_no_attempt(bench: Bench) -> None:
    job = bench.ask()
    bench.take()
    assert bench.end(job, 1, status="released")
    assert taken(bench.take()) == (job, 1)


def test_a_job_that_waits_is_cancelled_at_once_and_one_that_runs_at_its_next_word(bench: Bench) -> None:
    waits = bench.ask()
    assert bench.jobs.cancel(waits, "ann").status == "cancelled"
    assert bench.take() is None
    runs = bench.ask()
    bench.take()
    assert bench.jobs.cancel(runs, "ann").status == "running"
    assert bench.desk.note(caller(), runs, 1, None, []) is True
    assert bench.pass_time(2 * LEASE_S) == (runs,)  # the process is gone before it ends
    assert bench.job(runs).status == "cancelled"


def test_a_job_of_a_policy_that_is_another_agents_by_now_fails_with_a_word(bench: Bench) -> None:
    job = bench.ask()
    bench.policies = loaded(FILE.replace("agent: web-1", "agent: mail-1"), ENVIRON)
    assert bench.take() is None
    ended = bench.job(job)
    assert (ended.status, (ended.error or {})["code"]) == ("failed", "NotFound")


def test_jobs_of_another_agent_are_as_if_they_were_not_there(bench: Bench) -> None:
    job = bench.ask()
    bench.take()
    for touch in (
        lambda: bench.desk.note(caller("mail-1"), job, 1, None, []),
        lambda: bench.end(job, 1, caller("mail-1")),
        lambda: bench.desk.policy_of(caller("mail-1"), job),
    ):
        with pytest.raises(NotFound):
            touch()


def test_when_an_agent_was_last_seen_stays_known_and_old_processes_are_forgotten(bench: Bench) -> None:
    bench.take(caller(instance="1" * 12))
    bench.clock.advance(5)
    bench.take(caller(instance="2" * 12))
    seen = bench.clock.now()
    bench.pass_time(3 * LEASE_S)
    assert [one.worker for one in bench.processes.all()] == ["agent:web-1/" + "2" * 12]
    with bench.catalog.reading() as session:
        assert last_seen(session)["web-1"].at == seen


# -- what is sent


def test_what_an_agent_is_sent_is_the_run_and_nothing_else(bench: Bench) -> None:
    bench.ask("db")
    handed = bench.take()
    assert handed is not None
    sent = handed.work.document()
    assert set(sent["policy"]) == {"description", "tags", "sources", "retention", "verification", "hooks"}
    assert sent["policy"]["retention"]["keep_daily"] == 7
    assert sent["timezone"] == "Europe/Berlin"
    assert ENVIRON["SECRET"] not in str(sent)
    assert Work.parse(sent) == handed.work
    assert programs_of(handed.work.policy) == ["/bin/prepare"]


def test_work_of_another_version_is_told_as_that() -> None:
    with pytest.raises(InvalidRequest, match="does not understand its job") as caught:
        Work.parse({"name": "x", "policy": {"sources": [], "newer": 1}, "timezone": "UTC", "kind": "full"})
    assert "version of the server" in caught.value.hint


def test_a_password_that_comes_from_elsewhere_in_the_file_is_not_sent() -> None:
    server = 'verification: {each_run: true, restore_test: true, server: "postgresql://me:${SECRET}@localhost/x"}'
    policies = loaded(FILE.replace("  retention: {keep_daily: 7}", f"  {server}"), ENVIRON)
    with pytest.raises(InvalidRequest, match="cannot be sent to its agent"):
        work_of("web", {}, policies, agent="web-1")


def test_a_policy_of_an_agent_is_not_run_by_anybody_else() -> None:
    policies = loaded(FILE, ENVIRON)
    with pytest.raises(InvalidRequest, match="is not run here") as caught:
        run_policy(policies, "web", RunOptions(host="h"), NOWHERE)
    assert "agent web-1" in caught.value.cause
