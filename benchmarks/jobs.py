"""How jobs fare: `python -m benchmarks.jobs [--jobs 1000] [--workers 4] [--seconds-between-kills 4]`.

First the time from asking for a job to its beginning, on a service that has nothing to do, on SQLite and on PostgreSQL.
Then many short jobs for several worker processes on PostgreSQL, of which one at a time is killed, or put to sleep for
longer than its lease, at moments that chance chooses; each that died is started again. At the end each job must have
ended once, by its last attempt. The report is one JSON document. It fails if a job was lost, or two ends count.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeAlias

from tests.control.jobs.worker_process import LEASE_S
from tests.postgres.servers import running_server

from backstay.catalog.database import Catalog
from backstay.control.jobs.dbos_engine import DbosEngine
from backstay.control.jobs.jobs import JobFilters, Jobs
from backstay.core.clock import SystemClock

ROOT: Final = Path(__file__).parents[1]
_STEPS: Final = 5  # of 20 ms each

Sleeper: TypeAlias = tuple[float, "subprocess.Popen[str]"]  # until when it sleeps


class Workers:
    """Worker processes of one place, and a way to ask for jobs."""

    def __init__(self, directory: Path, database: str | None) -> None:
        self.directory, self.database, self.log = directory, database, directory / "log"
        self.running: list[subprocess.Popen[str]] = []

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.control.jobs.worker_process", str(self.directory), str(self.log)]
        command += [] if self.database is None else [self.database]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        self.running.append(process)

    @contextmanager
    def asking(self) -> Iterator[Jobs]:
        catalog_url = self.database or f"sqlite:///{self.directory}/catalog.db"
        engine_url = self.database or f"sqlite:///{self.directory}/jobs.db"
        clock = SystemClock()
        engine = DbosEngine.open(engine_url, worker="asking", clock=clock)
        try:
            with Catalog.open(catalog_url) as catalog:
                yield Jobs(catalog, engine, clock)
        finally:
            engine.close()

    def end(self) -> None:
        for process in self.running:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


def latency(directory: Path, database: str | None, count: int = 40) -> dict[str, float]:
    """Seconds from asking for a backup to its beginning, as the rows have it, and what a worker without work costs."""
    workers = Workers(directory, database)
    workers.start()
    try:
        with workers.asking() as jobs:
            waited, chance = [], random.Random(count)
            for number in range(count):
                time.sleep(chance.uniform(0, 0.3))  # nobody asks in step with those who look
                job = jobs.create("backup", {"steps": 0}, policy=f"policy-{number}", actor="benchmark")
                while (row := jobs.get(job.id)).finished_at is None:
                    time.sleep(0.02)
                assert row.started_at is not None
                waited.append((row.started_at - row.created_at).total_seconds())
            before, began = _cpu_s(workers.running[0].pid), time.monotonic()
            time.sleep(5)
            idle = (_cpu_s(workers.running[0].pid) - before) / (time.monotonic() - began)
    finally:
        workers.end()
    return {
        "median_s": round(statistics.median(waited), 3),
        "p90_s": round(statistics.quantiles(waited, n=10)[-1], 3),
        "idle_cores": round(idle, 3),
    }


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def storm(directory: Path, database: str, *, jobs: int, workers: int, pause_s: float, seed: int) -> dict[str, Any]:
    """Many jobs under kills and long sleeps."""
    chance, place = random.Random(seed), Workers(directory, database)
    for _ in range(workers):
        place.start()
    done: Counter[str] = Counter()
    asleep: list[Sleeper] = []
    try:
        with place.asking() as asking:
            began = time.monotonic()
            ids: list[str] = []
            asker = threading.Thread(target=_ask, args=(asking, jobs, ids))
            asker.start()
            while asker.is_alive() or asking.page(JobFilters(status=("queued", "running")), 1).items:
                assert time.monotonic() - began < 900, "jobs are stuck"
                time.sleep(chance.uniform(0.5, 1.5) * pause_s)
                asleep = [one for one in asleep if not _woken(one)]
                done[_strike(place, asleep, chance)] += 1
            took = time.monotonic() - began
            return {
                "jobs": jobs,
                "workers": workers,
                "ended_in_s": round(took, 1),
                "killed": done["killed"],
                "put_to_sleep": done["asleep"],
                **_verdict(asking, place.log, ids),
            }
    finally:
        place.end()


def _ask(jobs: Jobs, count: int, ids: list[str]) -> None:
    ids.extend(jobs.create("notification", {"steps": _STEPS}, actor="benchmark").id for _ in range(count))


def _strike(place: Workers, asleep: list[Sleeper], chance: random.Random) -> str:
    """Kill a worker and start another, or put one to sleep; at least one stays awake."""
    awake = [one for one in place.running if one not in [process for _, process in asleep]]
    if len(awake) < 2:
        return "nothing"
    victim = chance.choice(awake)
    if chance.random() < 0.5:
        victim.send_signal(signal.SIGSTOP)
        asleep.append((time.monotonic() + LEASE_S * 3, victim))
        return "asleep"
    victim.kill()
    victim.wait()
    place.running.remove(victim)
    place.start()
    return "killed"


def _woken(sleeper: Sleeper) -> bool:
    until, process = sleeper
    if time.monotonic() < until:
        return False
    process.send_signal(signal.SIGCONT)
    return True


def _verdict(jobs: Jobs, log: Path, ids: list[str]) -> dict[str, Any]:
    """What became of each job; an attempt that nobody counts may have ended too, in a process that had slept."""
    rows = {job_id: jobs.get(job_id) for job_id in ids}
    told = Counter(line.rpartition(" ")[0] for line in log.read_text().splitlines())
    lost = [job_id for job_id, row in rows.items() if row.status != "succeeded"]
    wrong = [
        row.id
        for row in rows.values()
        if row.status == "succeeded" and (row.result or {}).get("attempt") != row.attempts
    ]
    twice = [what for what, times in told.items() if times > 1]
    return {
        "lost": len(lost),
        "ends_of_another_attempt": len(wrong),
        "attempts_with_the_same_number": len(twice),
        "begun_again": sum(row.attempts - 1 for row in rows.values()),
        "most_attempts": max(row.attempts for row in rows.values()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds-between-kills", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="backstay-jobs-") as made, running_server() as server:
        places = [Path(made) / name for name in ("embedded", "shared", "storm")]
        for place in places:
            place.mkdir()
        server.sql("create database latency")
        server.sql("create database storm")
        address = server.url.removesuffix("/postgres")
        report = {
            "start_sqlite": latency(places[0], None),
            "start_postgresql": latency(places[1], f"{address}/latency"),
            "storm": storm(
                places[2],
                f"{address}/storm",
                jobs=asked.jobs,
                workers=asked.workers,
                pause_s=asked.seconds_between_kills,
                seed=asked.seed,
            ),
        }
    print(json.dumps(report, indent=2))
    bad = ("lost", "ends_of_another_attempt", "attempts_with_the_same_number")
    return int(any(report["storm"][name] for name in bad))


if __name__ == "__main__":
    sys.exit(main())
