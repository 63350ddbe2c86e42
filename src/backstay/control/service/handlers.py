"""What each kind of job does: thin, as the manager does the work, and what the command line uses below it.

A handler returns what the row shows as the result; it raises JobFailed for a failure that has something to show. Any of
them may be begun again after a crash: what was stored before is used again, what was deleted is not there any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Final, TypeAlias

from backstay.catalog.models.base import Document
from backstay.catalog.models.jobs import Job
from backstay.control.jobs.execution import Execution
from backstay.control.jobs.failures import JobFailed
from backstay.control.manager.copying import copies_document
from backstay.control.manager.documents import run_document
from backstay.control.manager.retaining import collection_document
from backstay.control.policies.effective import effective
from backstay.control.service.context import ServiceContext, backups_of, policy_of
from backstay.control.service.recovering import recovery
from backstay.control.service.restoring import restore
from backstay.control.service.verifying import verification
from backstay.errors import CorruptedBackup, InvalidRequest, NotFound

Handler: TypeAlias = Callable[[ServiceContext, Job, Execution], Document]


def handle(handlers: Mapping[str, Handler], context: ServiceContext, job: Job, execution: Execution) -> Document:
    """Do the work of a job; its result. Raises what the work does."""
    handler = handlers.get(job.kind)
    if handler is None:
        raise InvalidRequest(
            f"this version does not know jobs of the kind {job.kind}",
            cause=f"it knows {', '.join(handlers)}",
            hint="bring all workers up to date",
        )
    return handler(context, job, execution)


def backup(context: ServiceContext, job: Job, execution: Execution) -> Document:
    """Run a policy, or some of its sources. A failure of one source keeps what was made of the others."""
    asked = job.arguments
    run = context.manager(execution).execute(
        policy_of(job),
        kind=asked.get("type") or asked.get("kind") or "incremental",
        sources=tuple(asked.get("sources") or ()),
        tags=tuple(asked.get("tags") or ()),
        description=asked.get("description"),
        retention_days=_days(context, policy_of(job), asked.get("retention_days")),
        dry_run=bool(asked.get("dry_run")),
        check=False,
        events=execution.events,
        checkpoint=execution.checkpoint,
        job_id=job.id,
    )
    result = run_document(run)
    if not run.ok:
        wrong = CorruptedBackup(f"the new backup of {job.policy} is not good", cause="verification found mistakes")
        raise JobFailed(run.error or wrong, result)
    return result


def _days(context: ServiceContext, name: str, asked: int | None) -> int | None:
    """How long backups stay whatever the policy drops. Where it drops nothing, days must not make it drop."""
    loaded = context.policies.loaded
    policy = None if loaded is None else loaded.content.policies.get(name)
    if loaded is None or policy is None:
        return asked
    return None if effective(policy, loaded.content.backup_manager).retention is None else asked


def prune(context: ServiceContext, job: Job, execution: Execution) -> Document:
    """Delete what retention does not keep: of one policy, or of each that has rules."""
    names = [job.policy] if job.policy is not None else sorted(context.policies.required().content.policies)
    manager, dry_run = context.manager(execution), bool(job.arguments.get("dry_run"))
    found: Document = {}
    for name in names:
        execution.checkpoint()
        try:
            pruned = manager.prune(name, dry_run=dry_run, events=execution.events, job_id=job.id)
        except InvalidRequest:
            if job.policy is not None:
                raise
            continue  # a policy without rules keeps everything
        found[name] = asdict(pruned)
    return {"policies": found, "dry_run": dry_run, "dropped": sum(len(one["dropped"]) for one in found.values())}


def gc(context: ServiceContext, job: Job, execution: Execution) -> Document:
    """Free what no backup needs."""
    done = context.manager(execution).gc(
        dry_run=bool(job.arguments.get("dry_run")), events=execution.events, job_id=job.id
    )
    return collection_document(done)


def copy(context: ServiceContext, job: Job, execution: Execution) -> Document:
    """Bring the copies of the policy file up to date. A failure of one keeps what was sent to the others."""
    made = context.manager(execution).copy(
        check=False, events=execution.events, checkpoint=execution.checkpoint, job_id=job.id
    )
    result = copies_document(made)
    if (failed := next((one.error for one in made if one.error is not None), None)) is not None:
        raise JobFailed(failed, result)
    return result


def delete(context: ServiceContext, job: Job, execution: Execution) -> Document:
    """Delete backups. One that is gone already was deleted by an earlier attempt, or by somebody else."""
    manager, reason = context.manager(execution), job.arguments.get("reason") or f"deleted by {job.actor}"
    deleted, absent = list[str](), list[str]()
    for backup_id in backups_of(job):
        execution.checkpoint()
        try:
            deleted += manager.delete(backup_id, reason=reason, job_id=job.id)
        except NotFound:
            absent.append(backup_id)
    if absent and not deleted and execution.attempt == 1:
        raise NotFound(f"there is no backup {absent[0]}")
    return {"deleted": deleted, "absent": absent}


def notification(context: ServiceContext, job: Job, execution: Execution) -> Document:
    """Send a test message to a target, or without one all messages that are due."""
    del execution
    if target := job.arguments.get("target"):
        return {"message": context.notifier.send_test(target)}
    return asdict(context.notifier.deliver_due())


HANDLERS: Final[Mapping[str, Handler]] = MappingProxyType(
    {
        "backup": backup,
        "restore": restore,
        "verification": verification,
        "rehearsal": verification,
        "prune": prune,
        "gc": gc,
        "copy": copy,
        "delete": delete,
        "recovery": recovery,
        "notification": notification,
    }
)
