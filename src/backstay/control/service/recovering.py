"""Jobs that carry a recovery plan out.

One plan is carried out by one job at a time. Order: the state of the recovery is made in the data directory, then the
job's row says on which host, then steps are done, each noted before and after. A crash before the row says so leaves
nothing that counts; a later one leaves the state, with which whoever runs the job again on this host goes on. On
another host nothing is known of what was done: there the job fails, and no step is done twice.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

from backstay.catalog.models.base import Document
from backstay.catalog.models.jobs import Job
from backstay.catalog.pages import MAXIMUM_LIMIT
from backstay.control.jobs.execution import Execution
from backstay.control.jobs.failures import JobFailed
from backstay.control.jobs.jobs import Jobs
from backstay.control.jobs.listing import JobFilters
from backstay.control.policies.values import expanded
from backstay.control.recovery.kept_plans import KeptPlans
from backstay.control.recovery.loading import LoadedPlan
from backstay.control.recovery.previewing import preview_plan
from backstay.control.recovery.report import digest_of, report
from backstay.control.recovery.running import Company, Recovery
from backstay.control.recovery.state import RecoveryState
from backstay.control.service.context import ServiceContext
from backstay.errors import BackstayError, InvalidRequest, JobConflict, StepFailed

_STATES: Final = "recoveries"  # in the data directory
_PRIVATE: Final = ("output", "value")  # what programs and databases said is not for all who see jobs


def recovery(context: ServiceContext, job: Job, execution: Execution) -> Document:
    """Carry a plan out, go on with one, or only look at it. A failure keeps the report."""
    loaded = plans_of(context).load(str(job.arguments.get("plan")), context.environ)
    _require_same(loaded, job)
    manager, place = context.manager(execution), _state_file(context, job)
    if job.arguments.get("dry_run"):
        known = RecoveryState.peek(place, context.clock)
        found = preview_plan(loaded, known, manager, environ=context.environ, clock=context.clock)
        if found.error is not None:
            raise JobFailed(found.error, found.document)
        return found.document
    _require_here(job, place)
    place.parent.mkdir(mode=0o700, exist_ok=True)
    with (
        _alone(place.with_name(f"{job.arguments.get('plan')}.lock")),
        RecoveryState.open(place, context.clock) as state,
    ):
        telling = _Telling(execution, loaded)
        run = Recovery(
            loaded=loaded,
            state=state,
            manager=manager,
            environ=context.environ,
            clock=context.clock,
            company=Company(
                stop_if_asked=execution.checkpoint,
                ask=_answers(loaded, job.arguments.get("confirmed") or ()),
                tell=telling.tell,
                fit=partial(_without_quoted, place=place),
            ),
            job_id=job.id,
        )
        run.run()
        result = _without_private(report(run, context.clock.now()))
    if not run.ok:
        raise JobFailed(next(iter(run.errors.values())), result)
    return result


def plans_of(context: ServiceContext) -> KeptPlans:
    """The plans that the policy file lets the service carry out."""
    named = context.policies.service.recovery_plans
    return KeptPlans(directory=None if named is None else Path(expanded(named, context.environ)))


def forget_states(data_dir: Path, before: datetime, jobs: Jobs) -> int:
    """Remove what recoveries noted that nobody went on with since a time; how many. Raises CatalogUnavailable.

    A recovery that has not ended keeps it: one step may take longer, and a service may have stood still.
    """
    filters = JobFilters(kinds=("recovery",), status=("queued", "running"))
    wanted = {_first_run(job) for job in jobs.page(filters, MAXIMUM_LIMIT).items}
    files = [file for file in (data_dir / _STATES).glob("*.state") if file.stem not in wanted]
    old = [file for file in files if file.stat().st_mtime < before.timestamp()]
    for file in old:
        file.unlink(missing_ok=True)
    return len(old)


def _state_file(context: ServiceContext, job: Job) -> Path:
    """What the first run of a recovery is called, so is its state."""
    return context.data_dir / _STATES / f"{_first_run(job)}.state"


def _first_run(job: Job) -> str:
    return str(job.arguments.get("run") or job.id)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Keep others from carrying out the same plan here meanwhile; a crash lets go. Raises JobConflict."""
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise already_running("another job carries it out") from None
    try:
        yield
    finally:
        os.close(fd)


def already_running(cause: str) -> JobConflict:
    """What is told to the second of two recoveries by one plan: they would write to the same places."""
    return JobConflict(
        "a recovery by this plan is running", cause=cause, hint="wait for its end, or cancel it and go on with it"
    )


def _require_same(loaded: LoadedPlan, job: Job) -> None:
    """See that the plan is the one that was looked at when the job was asked for. Raises InvalidRequest."""
    if job.arguments.get("digest") != digest_of(loaded):
        raise InvalidRequest(
            "the plan is not the one that was asked for",
            cause=f"{loaded.file} was changed since, or differs on this host",
            hint="look at the plan, and ask for it again",
        )


def _require_here(job: Job, place: Path) -> None:
    """See that what was done before is known. Raises InvalidRequest."""
    before = (job.progress or {}).get("host")
    if (job.arguments.get("run") or before is not None) and not place.exists():
        raise InvalidRequest(
            "what the recovery has done so far is not known here",
            cause=f"it ran on {before}" if before else f"there is no {place}",
            hint="resume it where only that host runs restores, or look at what was done and begin anew",
        )


def _answers(loaded: LoadedPlan, confirmed: Collection[str]) -> Callable[[str], bool]:
    """Yes to the questions of steps that were confirmed by their names, no to all others."""
    answered = {f"{name}: {step.confirm}" for name, step in loaded.steps.items() if name in confirmed}
    return answered.__contains__


def _without_private(document: Document) -> Document:
    for step in document["steps"]:
        step["result"] = {key: value for key, value in step["result"].items() if key not in _PRIVATE}
    return document


def _without_quoted(error: BackstayError, place: Path) -> BackstayError:
    if not isinstance(error, StepFailed) or not error.quoted:
        return error
    return error.without_quoted(f"what it said stands in {place}; mend the cause, and go on with the recovery")


class _Telling:
    """What becomes of the steps, as progress and lines of a job. Several threads tell."""

    def __init__(self, execution: Execution, loaded: LoadedPlan) -> None:
        self._execution = execution
        self._steps = dict.fromkeys(loaded.steps, "waiting")
        self._show()
        execution.write()  # the host is known before anything is done

    def tell(self, step: str, what: str, more: str) -> None:
        """One thing of one step."""
        level = "error" if what == "failed" else "warning" if what in ("again", "blocked") else "info"
        self._execution.log(level, f"{step}: {what}{f': {more}' if more else ''}")
        self._steps[step] = {"begun": "running", "again": "running", "before": "done"}.get(what, what)
        self._show()

    def _show(self) -> None:
        steps = dict(self._steps)
        counts = Counter(steps.values())
        self._execution.progress(
            {
                "stage": "recovery",
                "host": socket.gethostname(),
                "done": counts["done"],
                "total": len(steps),
                "steps": steps,
            }
        )
