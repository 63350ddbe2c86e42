"""An engine whose state a test sets, and claims that it controls: for what happens between rows and engine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from backstay.control.jobs.port import Claim, EngineState, JobEngine, RunJob, StopReason, Swept
from backstay.errors import CatalogUnavailable


class ScriptedEngine(JobEngine):
    """Knows what it was told, and runs nothing."""

    def __init__(self) -> None:
        self.told: dict[str, EngineState] = {}
        self.submitted: list[str] = []
        self.cancelled: list[str] = []
        self.gone: list[str] = []
        self.holding: frozenset[str] = frozenset()
        self.broken = False

    @property
    def worker(self) -> str:
        return "me"

    def submit(
        self,
        job_id: str,
        *,
        queue: str,
        priority: int = 0,
        partition: str | None = None,
        not_before: datetime | None = None,
    ) -> None:
        self._check()
        self.submitted.append(job_id)
        self.told.setdefault(job_id, "waiting")

    def state(self, job_id: str) -> EngineState:
        return self.states([job_id])[job_id]

    def states(self, job_ids: Sequence[str]) -> dict[str, EngineState]:
        self._check()
        return {job_id: self.told.get(job_id, "unknown") for job_id in job_ids}

    def cancel(self, job_id: str) -> None:
        self._check()
        self.cancelled.append(job_id)
        if self.told.get(job_id) == "waiting":
            self.told[job_id] = "cancelled"

    def holders(self) -> frozenset[str]:
        return self.holding

    def sweep(self, gone: Sequence[str] = ()) -> Swept:
        self.gone += gone
        return Swept(workers=tuple(gone))

    def forget(self, before: datetime) -> int:
        return 0

    def start(self, run: RunJob, *, queues: Sequence[str]) -> None:
        raise NotImplementedError

    def stop(self, *, timeout_s: float) -> bool:
        return True

    def close(self) -> None:
        """Nothing is open."""

    def _check(self) -> None:
        if self.broken:
            raise CatalogUnavailable("the queue of jobs cannot be used")


class ScriptedClaim(Claim):
    def __init__(self, job_id: str, worker: str = "me") -> None:
        self.job_id, self.worker = job_id, worker
        self.why: StopReason | None = None

    def stop_reason(self) -> StopReason | None:
        return self.why
