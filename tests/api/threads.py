"""An engine that runs jobs in threads and forgets them with the process, which can have one of the real ones only."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from backstay.control.jobs.port import Claim, EngineState, JobEngine, RunJob, StopReason, Swept


class _Claim(Claim):
    def __init__(self, engine: ThreadEngine, job_id: str) -> None:
        self.job_id, self.worker, self._engine = job_id, engine.worker, engine

    def stop_reason(self) -> StopReason | None:
        if self.job_id in self._engine.cancelled:
            return "cancelled"
        return "stopping" if self._engine.stopping.is_set() else None


class ThreadEngine(JobEngine):
    """Runs what is submitted, two at a time."""

    def __init__(self) -> None:
        self.cancelled: set[str] = set()
        self.stopping = threading.Event()
        self._known: dict[str, EngineState] = {}
        self._pool = ThreadPoolExecutor(2, "job")
        self._run: RunJob | None = None

    @property
    def worker(self) -> str:
        return "threads"

    def submit(
        self,
        job_id: str,
        *,
        queue: str,
        priority: int = 0,
        partition: str | None = None,
        not_before: datetime | None = None,
    ) -> None:
        if job_id not in self._known:
            self._known[job_id] = "waiting"
            self._pool.submit(self._work, job_id)

    def _work(self, job_id: str) -> None:
        if self._run is None or job_id in self.cancelled:
            return
        self._known[job_id] = "running"
        self._run(_Claim(self, job_id))
        self._known[job_id] = "done"

    def state(self, job_id: str) -> EngineState:
        return self._known.get(job_id, "unknown")

    def states(self, job_ids: Sequence[str]) -> dict[str, EngineState]:
        return {job_id: self.state(job_id) for job_id in job_ids}

    def cancel(self, job_id: str) -> None:
        self.cancelled.add(job_id)

    def holders(self) -> frozenset[str]:
        return frozenset()

    def sweep(self, gone: Sequence[str] = ()) -> Swept:
        return Swept()

    def forget(self, before: datetime) -> int:
        return 0

    def start(self, run: RunJob, *, queues: Sequence[str]) -> None:
        self._run = run

    def stop(self, *, timeout_s: float) -> bool:
        self.stopping.set()
        self._pool.shutdown()
        return True

    def close(self) -> None:
        self.stop(timeout_s=0)
