"""Run one job that was claimed: take its row, do the work, write its end.

Crash order: the row says `running` before the work begins, and its end is written before the engine is told that the
job is done. A crash between leaves a job that the engine runs again: it finds the row ended, and does nothing. A crash
before leaves a row that says `running`; who is next takes it with a new attempt. After too many attempts that had no
end the job itself is what kills its workers: it fails with JobLost.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Final, TypeAlias

from backstay.catalog.database import Catalog
from backstay.catalog.models.base import Document
from backstay.catalog.models.jobs import Job, JobStatus
from backstay.control.jobs.execution import Execution
from backstay.control.jobs.failures import JobFailed, failure_of
from backstay.control.jobs.port import Claim, Released
from backstay.control.jobs.rows import JobRows, Line, Tenure
from backstay.core.clock import Clock
from backstay.errors import BackstayError, CatalogUnavailable, JobLost
from backstay.errors.documents import problem_document

MOST_ATTEMPTS: Final = 5  # that had no end, not even a bad one
_TRIES: Final = 5  # to write the end of a job, before it is run again instead
_PAUSE_S: Final = 1.0

Handle: TypeAlias = Callable[[Job, Execution], Document]


class Runner:
    """What the engine calls for each job. `handle` does the work, and returns what the row shows as the result."""

    def __init__(self, catalog: Catalog, clock: Clock, handle: Handle, *, most_attempts: int = MOST_ATTEMPTS) -> None:
        self._rows, self._clock = JobRows(catalog, clock), clock
        self._handle, self._most_attempts = handle, most_attempts

    def __call__(self, claim: Claim) -> None:
        """Raises Released when the job is to be run again."""
        try:
            begun = self._rows.begin(claim.job_id, claim.worker)
        except CatalogUnavailable as error:
            self._clock.sleep(_PAUSE_S)
            raise Released from error
        if begun is None:
            return
        tenure, job = begun
        execution = Execution(claim, tenure, self._rows, clock=self._clock, cancel_asked=job.cancel_asked)
        if job.attempts > self._most_attempts:
            self._end(tenure, execution, "failed", error=_lost(job.attempts - 1))
        elif job.cancel_asked:
            self._end(tenure, execution, "cancelled")
        else:
            self._work(job, tenure, execution)

    def _work(self, job: Job, tenure: Tenure, execution: Execution) -> None:
        if tenure.attempt > 1:
            execution.log("warning", f"begun again: attempt {tenure.attempt}")
        try:
            result = self._handle(job, execution)
        except JobFailed as failure:
            self._failed(tenure, execution, failure.error, failure.result)
        except Exception as error:  # noqa: BLE001 - whatever it is, the job has an end
            failed = failure_of(error)
            if failed is not error:
                execution.log("error", "".join(traceback.format_exception(error)))
            self._failed(tenure, execution, failed, None)
        else:
            self._end(tenure, execution, "succeeded", result=result)

    def _failed(self, tenure: Tenure, execution: Execution, error: BackstayError, result: Document | None) -> None:
        """What was asked to end has not failed, whatever its last words were."""
        if execution.why == "lost":
            raise Released from error
        if execution.why == "stopping":
            self._release(tenure, execution)
            raise Released from error
        if execution.why == "cancelled":
            self._end(tenure, execution, "cancelled", result=result)
        elif isinstance(error, CatalogUnavailable):  # says nothing about the job: it may have done all but tell of it
            self._clock.sleep(_PAUSE_S)
            raise Released from error
        else:
            self._end(tenure, execution, "failed", result=result, error=error)

    def _end(
        self,
        tenure: Tenure,
        execution: Execution,
        status: JobStatus,
        *,
        result: Document | None = None,
        error: BackstayError | None = None,
    ) -> None:
        progress, lines = execution.untold()
        if error is not None:
            lines.append(Line(time=self._clock.now(), level="error", message=str(error)))
        for left in reversed(range(_TRIES)):
            try:
                ours = self._rows.end(
                    tenure,
                    status,
                    lines=lines,
                    progress=progress,
                    result=result,
                    error=None if error is None else problem_document(error) | {"job_id": tenure.job_id},
                    backup_id=(result or {}).get("backup_id"),
                )
            except CatalogUnavailable as failure:
                if left == 0:
                    raise Released from failure
                self._clock.sleep(_PAUSE_S)
            else:
                if not ours:  # somebody else has the job, and says how it ends
                    raise Released
                return

    def _release(self, tenure: Tenure, execution: Execution) -> None:
        """What cannot be written down now is found out by the sweeper: the engine says that the job waits."""
        _, lines = execution.untold()
        lines.append(Line(time=self._clock.now(), level="info", message="the process was asked to stop"))
        try:
            self._rows.release(tenure, lines=lines, counts=False)
        except CatalogUnavailable as error:
            raise Released from error


def _lost(attempts: int) -> JobLost:
    return JobLost(
        "the job was begun again and again, and never came to an end",
        cause=f"{attempts} attempts ended with the process that ran it",
    )
