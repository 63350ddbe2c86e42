"""What each kind of job does: thin, as the work is done by what the command line uses too.

A handler returns what the row shows as the result; it raises JobFailed for a failure that has something to show.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from backstay.catalog.database import Catalog
from backstay.catalog.models.base import Document
from backstay.catalog.models.jobs import Job
from backstay.control.jobs.execution import Execution
from backstay.control.jobs.failures import JobFailed
from backstay.control.jobs.jobs import Jobs
from backstay.control.opening.opener import Opener
from backstay.control.runs.run import PolicyOutcome, RunOptions, World, run_policy
from backstay.control.service.policies import Policies
from backstay.core.clock import Clock
from backstay.core.events import EventSink
from backstay.errors import CorruptedBackup, InvalidRequest
from backstay.errors.documents import problem_document


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceContext:
    """What jobs work with."""

    policies: Policies
    catalog: Catalog
    jobs: Jobs
    data_dir: Path
    environ: Mapping[str, str]
    clock: Clock
    warn: Callable[[str], None]


Handler: TypeAlias = Callable[[ServiceContext, Job, Execution], Document]


def handle(handlers: Mapping[str, Handler], context: ServiceContext, job: Job, execution: Execution) -> Document:
    """Do the work of a job; its result. Raises what the work does."""
    handler = handlers.get(job.kind)
    if handler is None:
        raise InvalidRequest(f"this version does not know jobs of the kind {job.kind}", hint="update its workers")
    return handler(context, job, execution)


def backup(context: ServiceContext, job: Job, execution: Execution) -> Document:
    """Run a policy, or some of its sources."""
    loaded, asked = context.policies.required(), job.arguments
    opener = Opener.of_policies(
        loaded, environ=context.environ, clock=context.clock, warn=lambda text: execution.log("warning", text)
    )
    world = World(
        prepare=opener.prepare,
        open=lambda: opener.open(grows=True),
        watching=lambda: _watching(execution),
        clock=context.clock,
        environ=context.environ,
        warn=lambda text: execution.log("warning", text),
        scratch=context.data_dir / "scratch",
    )
    options = RunOptions(
        kind=asked.get("type", "incremental"),
        host=socket.gethostname(),
        sources=tuple(asked.get("sources", ())),
        tags=tuple(asked.get("tags", ())),
        description=asked.get("description"),
        retention_days=asked.get("retention_days"),
        dry_run=asked.get("dry_run", False),
        job=job.id,
    )
    outcome = run_policy(loaded, job.policy or "", options, world)
    result = _outcome(outcome)
    if outcome.went_well:
        return result
    errors = outcome.errors or [CorruptedBackup("the new backup did not pass its verification")]
    raise JobFailed(errors[0], result)


@contextmanager
def _watching(execution: Execution) -> Iterator[tuple[EventSink, Callable[[], None]]]:
    yield execution.events, execution.checkpoint


def _outcome(outcome: PolicyOutcome) -> Document:
    made = outcome.snapshots
    return {
        "backups": made,
        "backup_id": made[0] if made else None,
        "outcome": "good" if outcome.went_well else "failed",
        "sources": [
            {"name": one.name, "error": None if one.error is None else problem_document(one.error)}
            for one in outcome.sources
        ],
        "dropped": list(outcome.dropped),
    }


HANDLERS: Final[Mapping[str, Handler]] = {"backup": backup}
