"""Workers that are killed or put to sleep while they run jobs: none is lost, none has two ends, none waits for ever."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from backstay.catalog.database import Catalog
from backstay.catalog.models.jobs import Job
from backstay.control.jobs.dbos_engine import DbosEngine
from backstay.control.jobs.jobs import JobFilters, Jobs
from backstay.core.clock import SystemClock
from tests.control.jobs.recording import eventually
from tests.postgres.servers import running_server

ROOT = Path(__file__).parents[3]


class Host:
    """A place for worker processes, and a way to ask for jobs."""

    def __init__(self, directory: Path, database: str | None) -> None:
        self.directory, self.database = directory, database
        self.log = directory / "log"
        self.opened = ExitStack()
        self.processes: list[subprocess.Popen[str]] = []

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.control.jobs.worker_process", str(self.directory), str(self.log)]
        command += [] if self.database is None else [self.database]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.stdout.read()
        return process

    def asking(self) -> Jobs:
        """Jobs as a process that runs none sees them."""
        clock = SystemClock()
        catalog = self.opened.enter_context(Catalog.open(self.database or f"sqlite:///{self.directory}/catalog.db"))
        engine = DbosEngine.open(self.database or f"sqlite:///{self.directory}/jobs.db", worker="asking", clock=clock)
        self.opened.callback(engine.close)
        return Jobs(catalog, engine, clock)

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        self.opened.close()

    def told(self) -> list[list[str]]:
        return [line.split() for line in self.log.read_text().splitlines()]


@pytest.fixture
def host(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path, None if kind == "sqlite" else request.getfixturevalue("postgres_url"))
    yield host
    host.close()


def ask(jobs: Jobs, count: int, *, steps: int = 8) -> list[Job]:
    return [jobs.create("notification", {"steps": steps}, actor="test") for _ in range(count)]


def all_ended(jobs: Jobs) -> list[Job]:
    """Wait until no job is left; the rows."""
    eventually(lambda: not jobs.page(JobFilters(status=("queued", "running"))).items, "the end of all jobs")
    return list(jobs.page(JobFilters(), 1000).items)


def check(host: Host, rows: list[Job], count: int) -> None:
    """Each job has one end, that of its last attempt, and each attempt was begun once.

    Not always in this order: who slept after taking a job tells of it when another one has begun it again.
    """
    assert Counter(row.status for row in rows) == {"succeeded": count}
    told = host.told()
    for row in rows:
        assert row.result is not None
        assert row.result["attempt"] == row.attempts
        begun = [int(attempt) for what, job_id, attempt, _ in told if (what, job_id) == ("begin", row.id)]
        assert len(begun) == len(set(begun)), f"{row.id} was begun twice with the same number"
        assert ["end", row.id, str(row.attempts), str(row.result["process"])] in told


@pytest.mark.crash
def test_no_job_is_lost_or_doubled_when_workers_are_killed_and_put_to_sleep(host: Host) -> None:
    chance, several = random.Random(7), host.database is not None
    workers = [host.start() for _ in range(2 if several else 1)]
    jobs = host.asking()
    ask(jobs, 20)
    time.sleep(chance.uniform(0.2, 0.5))
    workers[0].kill()
    if several:
        time.sleep(chance.uniform(0.1, 0.3))
        workers[1].send_signal(signal.SIGSTOP)
    else:
        workers[0].wait()
    host.start()
    if several:
        eventually(lambda: not any(row.worker and f":{workers[1].pid}:" in row.worker for row in running(jobs)))
        workers[1].send_signal(signal.SIGCONT)
    check(host, all_ended(jobs), 20)


def running(jobs: Jobs) -> list[Job]:
    return list(jobs.page(JobFilters(status="running"), 1000).items)


@pytest.mark.crash
@pytest.mark.parametrize("kind", ["postgresql"])
def test_a_worker_that_is_asked_to_end_gives_its_jobs_back_at_once(host: Host) -> None:
    worker = host.start()
    jobs = host.asking()
    (job,) = ask(jobs, 1, steps=40)
    eventually(lambda: jobs.get(job.id).status == "running")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert (jobs.get(job.id).status, jobs.get(job.id).attempts) == ("queued", 0)
    host.start()
    (row,) = all_ended(jobs)
    assert (row.status, row.attempts) == ("succeeded", 1)
    assert [line.message for line in jobs.lines(job.id)] == ["the process was asked to stop"]


@pytest.mark.crash
def test_a_database_that_is_away_for_a_while_fails_no_job(tmp_path: Path) -> None:
    with running_server() as server:
        host = Host(tmp_path, server.url)
        try:
            host.start()
            jobs = host.asking()
            ask(jobs, 4, steps=60)
            eventually(lambda: running(jobs))
            server.stop()
            time.sleep(2)
            server.start()
            check(host, all_ended(jobs), 4)
        finally:
            host.close()
