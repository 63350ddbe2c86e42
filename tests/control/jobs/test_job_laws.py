"""Laws of jobs: whatever dies or sleeps between any two steps, each job has one end, and nothing waits for ever."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backstay.catalog.database import Catalog
from backstay.catalog.models.jobs import FINISHED
from backstay.control.jobs.jobs import JobFilters, Jobs
from backstay.control.jobs.port import Swept
from backstay.control.jobs.rows import JobRows, Tenure
from backstay.control.jobs.sweeping import Sweeper
from backstay.control.jobs.workers import Workers
from backstay.errors import JobConflict
from backstay.testing.clock import FakeClock
from tests.control.jobs.scripted import ScriptedEngine

LEASE_S = 15.0
STEPS = (
    "ask",
    "ask_and_die",
    "cancel",
    "cancel_and_die",
    "claim",
    "begin",
    "end",
    "end_and_die",
    "die",
    "sleep",
    "sweep",
)


class QueueEngine(ScriptedEngine):
    """The promises of an engine, in memory: each job is claimed by one worker, and a later claim makes it void."""

    def __init__(self) -> None:
        super().__init__()
        self.claims: dict[str, tuple[str, int]] = {}
        self._number = 0

    def claim(self, worker: str) -> tuple[str, int] | None:
        waiting = [job_id for job_id, state in self.told.items() if state == "waiting"]
        if not waiting:
            return None
        self._number += 1
        self.told[waiting[0]] = "running"
        self.claims[waiting[0]] = (worker, self._number)
        return waiting[0], self._number

    def done(self, job_id: str, number: int) -> None:
        if self.told[job_id] == "running" and self.claims[job_id][1] == number:
            self.told[job_id] = "done"

    def holders(self) -> frozenset[str]:
        return frozenset(self.claims[job_id][0] for job_id, state in self.told.items() if state == "running")

    def sweep(self, gone: Sequence[str] = ()) -> Swept:
        back = [one for one, state in self.told.items() if state == "running" and self.claims[one][0] in gone]
        self.told |= dict.fromkeys(back, "waiting")
        return Swept(workers=tuple(gone), jobs=tuple(back))


class World:
    """One catalog, one queue, and one worker at a time; those before it are dead, or asleep with what they had."""

    def __init__(self, catalog: Catalog) -> None:
        self.clock, self.engine, self.catalog = FakeClock(), QueueEngine(), catalog
        self.jobs = Jobs(catalog, self.engine, self.clock)
        self.rows = JobRows(catalog, self.clock)
        self.workers = Workers(catalog, self.clock, lease_s=LEASE_S)
        self.sweeper = Sweeper(catalog, self.engine, self.workers, self.clock)
        self.asked: list[str] = []
        self.ends: Counter[str] = Counter()
        self.asleep: list[tuple[str, tuple[str, int], Tenure | None]] = []
        self.number = 0
        self.claimed: tuple[str, int] | None = None
        self.tenure: Tenure | None = None
        self.die()

    def die(self) -> None:
        self.number += 1
        self.worker = f"w{self.number}"
        self.claimed = self.tenure = None
        self.beat()

    def beat(self) -> None:
        self.workers.beat(self.worker, host="h", pid=1, queues=[])

    def sleep(self) -> None:
        if self.claimed is not None:
            self.asleep.append((self.worker, self.claimed, self.tenure))
        self.die()

    def ask(self) -> None:
        self.clock.advance(0.001)
        self.asked.append(self.jobs.create("gc", {}, actor="ann").id)

    def ask_and_die(self) -> None:
        self.engine.broken = True  # as far as the row and the queue go, a crash between them looks the same
        self.ask()
        self.engine.broken = False

    def cancel(self) -> None:
        if self.asked:
            try:
                self.jobs.cancel(self.asked[-1], "ben")
            except JobConflict:
                assert self.jobs.get(self.asked[-1]).status in FINISHED

    def cancel_and_die(self) -> None:
        self.engine.broken = True
        self.cancel()
        self.engine.broken = False

    def claim(self) -> None:
        if self.claimed is None:
            self.claimed = self.engine.claim(self.worker)

    def begin(self) -> None:
        self.claim()
        if self.claimed is not None and self.tenure is None:
            begun = self.rows.begin(self.claimed[0], self.worker)
            if begun is None:
                self.engine.done(*self.claimed)
                self.claimed = None
            else:
                self.tenure = begun[0]

    def end(self) -> None:
        self.begin()
        if self.claimed is not None and self.tenure is not None:
            self._end(self.tenure)
            self.engine.done(*self.claimed)
            self.claimed = self.tenure = None

    def end_and_die(self) -> None:
        self.begin()
        if self.tenure is not None:
            self._end(self.tenure)
        self.die()

    def _end(self, tenure: Tenure) -> None:
        wish = self.rows.note(tenure, None, [])
        self.ends[tenure.job_id] += self.rows.end(tenure, "cancelled" if wish else "succeeded", result={})

    def wake_all(self) -> None:
        """Sleepers go on where they were, and think that what they had is theirs."""
        for worker, claimed, tenure in self.asleep:
            begun = None if tenure is not None else self.rows.begin(claimed[0], worker)
            ours = tenure if begun is None else begun[0]
            if ours is not None:
                self._end(ours)
            self.engine.done(*claimed)
        self.asleep.clear()

    def sweep(self) -> None:
        for _ in range(7):
            self.clock.advance(3)
            self.beat()
            self.sweeper.sweep()


@pytest.fixture
def kind() -> str:
    return "sqlite"


@pytest.mark.property
def test_each_job_has_one_end_whatever_dies_or_sleeps(empty_catalog: Path) -> None:
    @settings(max_examples=40, deadline=None)
    @example(["ask", "claim", "sleep", "wake_all"])
    @given(st.lists(st.sampled_from((*STEPS, "wake_all")), min_size=3, max_size=25))
    def law(steps: list[str]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            shutil.copyfile(empty_catalog, f"{directory}/catalog.db")
            with Catalog.open(f"sqlite:///{directory}/catalog.db") as catalog:
                world = World(catalog)
                for step in steps:
                    getattr(world, step)()
                for _ in range(4):
                    world.sweep()
                    world.wake_all()
                    for _ in world.asked:
                        world.end()
                rows = {job.id: job for job in world.jobs.page(JobFilters(), 1000).items}
                assert [rows[job_id].status for job_id in world.asked if rows[job_id].status not in FINISHED] == []
                assert "failed" not in {row.status for row in rows.values()}, f"after {steps}"
                for job_id, row in rows.items():
                    begun = row.attempts > 0 and row.status == "succeeded"
                    assert world.ends[job_id] == 1 if begun else world.ends[job_id] <= 1

    law()
