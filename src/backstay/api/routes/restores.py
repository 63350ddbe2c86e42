"""Restores: planned, begun, listed, followed, cancelled."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Query, Response

from backstay.api.answers import answer
from backstay.api.call import Caller
from backstay.api.endpoints import Section
from backstay.api.job_answers import (
    RESTORES,
    WatchedJob,
    accepted,
    cancelled,
    job_document,
    job_meant,
    jobs_page,
    log_page,
)
from backstay.api.models.base import Ident, PageOf
from backstay.api.models.jobs import JobDocument, LineDocument, LogQuery
from backstay.api.models.restores import AskedRestore, PlanDocument, RestoreJobQuery
from backstay.api.restore_plans import kept_plan, plan_document, plan_named, previewed, require_nothing_there
from backstay.api.restore_requests import settled, settled_again
from backstay.api.routes.jobs import LastEvent
from backstay.api.streams import MEDIA_TYPE, streamed
from backstay.control.jobs.kinds import RestoreArguments
from backstay.errors import InvalidRequest

section = Section("restores")


@section.post(
    "/api/restore/validate",
    needs="restore:plan",
    does="restore.plan",
    answers={200: PlanDocument},
    refuses=(404, 409, 507),
)
def validate_restore(call: Caller, body: AskedRestore) -> Response:
    """Plan a restore: how much there is, what is in the way, whether it fits. Nothing is written.

    `plan_id` lets the same caller carry it out as it was planned.
    """
    if body.plan_id is not None:
        raise InvalidRequest("a plan is not planned again", cause="there is a `plan_id`")
    restore = settled(call, body)
    parts = previewed(call, restore)
    call.about(f"backup/{restore.backups[0].id}", backups=restore.arguments["backups"])
    ident, until = kept_plan(call, restore)
    seconds = call.backing.restore_seconds(sum(part.bytes for part in parts))
    return answer(plan_document(restore, parts, ident=ident, expires_at=until, seconds=seconds))


@section.post(
    "/api/restore/initiate",
    needs="restore:execute",
    does="restore.create",
    answers={202: JobDocument},
    refuses=(404, 409),
    creates=True,
    limit="restore",
)
def initiate_restore(call: Caller, body: AskedRestore) -> Response:
    """Begin a restore: beside, into a directory or a database, or in place.

    With the conflict mode `fail`, which is the default, nothing of the backup may be at the target.
    """
    if body.plan_id is not None:
        if body.model_fields_set - {"plan_id"}:
            raise InvalidRequest(
                "a plan is carried out as it is",
                cause=f"beside `plan_id` there is {', '.join(sorted(body.model_fields_set - {'plan_id'}))}",
                hint="plan what is wanted, or leave `plan_id` out",
            )
        restore = settled_again(call, cast("RestoreArguments", plan_named(call, body.plan_id)))
    else:
        restore = settled(call, body)
    require_nothing_there(call, restore)
    first = restore.backups[0]
    call.about(f"backup/{first.id}", backups=restore.arguments["backups"], mode=restore.arguments.get("mode"))
    job = call.backing.jobs.create(
        "restore",
        dict(restore.arguments),
        policy=restore.policy,
        scope=restore.scope,
        actor=call.principal.name,
        backup_id=first.id,
        job_id=call.new_id(),
        within=call.record,
    )
    return accepted(call, job)


@section.get("/api/restore/jobs", needs="backup:read", answers=PageOf[JobDocument])
def list_restores(call: Caller, asked: Annotated[RestoreJobQuery, Query()]) -> Response:
    """List restores, the newest first."""
    return jobs_page(call, asked, RESTORES if asked.kind is None else (asked.kind,))


@section.get("/api/restore/jobs/{job}", needs="backup:read", answers=JobDocument, refuses=(404,))
def get_restore(call: Caller, job: Ident) -> Response:
    """Tell how a restore is; its `result` is the report."""
    return answer(job_document(job_meant(call, job, RESTORES)))


@section.delete(
    "/api/restore/jobs/{job}", needs="restore:cancel", does="restore.cancel", answers={202: JobDocument}, refuses=(409,)
)
def cancel_restore(call: Caller, job: Ident) -> Response:
    """Cancel a restore. One in place puts back what it had moved."""
    return cancelled(call, job, RESTORES)


@section.get("/api/restore/jobs/{job}/log", needs="backup:read", answers=PageOf[LineDocument], refuses=(404,))
def get_restore_log(call: Caller, job: Ident, asked: Annotated[LogQuery, Query()]) -> Response:
    """Show the log of a restore, the oldest line first."""
    return log_page(call, job, RESTORES, asked)


@section.get(
    "/api/restore/jobs/{job}/events",
    needs="backup:read",
    answers={"type": "string"},
    media_type=MEDIA_TYPE,
    refuses=(404,),
)
def follow_restore(call: Caller, job: Ident, last_event_id: LastEvent = None) -> Response:
    """Follow a restore, as a job is followed."""
    found = job_meant(call, job, RESTORES)
    return streamed(call, WatchedJob(call.backing.jobs, found.id, int(last_event_id or 0)))
