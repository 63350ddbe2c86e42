"""Schedules: made, changed, paused, run now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from fastapi import Query, Response

from backstay.api.answers import answer, done, page
from backstay.api.call import Call, Caller
from backstay.api.endpoints import Section
from backstay.api.job_answers import accepted
from backstay.api.known import no_policy, policy_named, sources_meant, told_as
from backstay.api.models.base import Ident, PageOf
from backstay.api.models.jobs import JobDocument
from backstay.api.models.schedules import (
    AskedSchedule,
    PauseSchedule,
    PreviewQuery,
    ScheduleDocument,
    ScheduleQuery,
    Times,
)
from backstay.api.versions import etag_of
from backstay.catalog.models import ScheduleRecord
from backstay.catalog.models.jobs import JobKind
from backstay.control.access.permissions import Permission
from backstay.control.access.scopes import REPOSITORY, policy_scope
from backstay.control.scheduling.kinds import OF_REPOSITORY, TYPES
from backstay.control.scheduling.schedules import ScheduleFilters
from backstay.control.scheduling.specs import ScheduleSpec
from backstay.control.scheduling.work import require_work
from backstay.errors import NotFound

section = Section("schedules")

_WORK: Final[Mapping[JobKind, Permission]] = {
    "backup": "backup:create",
    "verification": "backup:validate",
    "prune": "backup:delete",
    "gc": "repo:gc",
    "copy": "repo:write",
}


@section.get("/api/backup/schedules", needs="schedule:read", answers=PageOf[ScheduleDocument])
def list_schedules(call: Caller, asked: Annotated[ScheduleQuery, Query()]) -> Response:
    """List schedules, those of the policy file too."""
    chosen = asked.model_dump(exclude={"limit", "cursor"})
    filters = ScheduleFilters(**chosen, scopes=call.scopes)
    found = call.backing.schedules.page(filters, asked.limit, asked.cursor)
    return page([schedule_document(record) for record in found.items], found.next)


@section.post(
    "/api/backup/schedules",
    needs="schedule:write",
    does="schedule.create",
    answers={201: ScheduleDocument},
    refuses=(404,),
    creates=True,
)
def create_schedule(call: Caller, body: AskedSchedule) -> Response:
    """Make a schedule for a policy, or for some of its sources."""
    spec = _spec(call, body)
    with call.backing.catalog.session() as session:
        made = call.backing.schedules.create(spec, session=session)
        call.about(f"schedule/{made.id}", policy=made.policy, type=made.type, cron=made.cron)
        where, tag = f"/api/backup/schedules/{made.id}", etag_of(made.id, made.version)
        return call.made(session, answer(schedule_document(made), 201, location=where, etag=tag))


@section.get("/api/backup/schedules/{schedule}", needs="schedule:read", answers=ScheduleDocument, refuses=(404,))
def get_schedule(call: Caller, schedule: Ident) -> Response:
    """Tell about one schedule, with its next time."""
    return _told(_meant(call, schedule))


@section.put(
    "/api/backup/schedules/{schedule}", needs="schedule:write", does="schedule.update", answers=ScheduleDocument
)
def update_schedule(call: Caller, schedule: Ident, body: AskedSchedule) -> Response:
    """Change all of a schedule. Those of the policy file are changed there."""
    before = _changeable(call, schedule)
    call.match(before.id, before.version)
    spec = _spec(call, body)
    call.about(f"schedule/{before.id}", policy=spec.policy, type=spec.type, cron=spec.cron)
    with call.backing.catalog.session() as session:
        version = None if call.if_match is None else before.version
        changed = call.backing.schedules.update(before.id, spec, version=version, session=session)
        call.record(session)
    return _told(changed)


@section.delete("/api/backup/schedules/{schedule}", needs="schedule:write", does="schedule.delete", refuses=(412,))
def delete_schedule(call: Caller, schedule: Ident) -> Response:
    """Delete a schedule; its jobs stay."""
    before = _changeable(call, schedule)
    call.match(before.id, before.version)
    with call.backing.catalog.session() as session:
        version = None if call.if_match is None else before.version
        call.backing.schedules.delete(before.id, version=version, session=session)
        call.record(session)
    return done()


@section.post(
    "/api/backup/schedules/{schedule}/run",
    needs="backup:create",
    does="schedule.run",
    answers={202: JobDocument},
    refuses=(404,),
    creates=True,
)
def run_schedule(call: Caller, schedule: Ident) -> Response:
    """Do now what a schedule does; its next time stays as it is."""
    record = _changeable(call, schedule)
    if call.backing.policies is not None:
        require_work(record.type, record.policy, record.sources, call.backing.policies)
    due = call.backing.schedules.job_of(record, call.backing.clock.now())
    job = call.backing.jobs.create(
        due.kind,
        due.arguments,
        policy=due.policy,
        scope=due.scope,
        actor=call.principal.name,
        schedule_id=record.id,
        job_id=call.new_id(),
        within=call.record,
    )
    return accepted(call, job)


@section.post(
    "/api/backup/schedules/{schedule}/pause",
    needs="schedule:write",
    does="schedule.pause",
    answers={200: ScheduleDocument},
    refuses=(404, 412),
)
def pause_schedule(call: Caller, schedule: Ident, body: PauseSchedule) -> Response:
    """Let a schedule not run until a time, or until it is resumed. Times in between are not made up for."""
    before = _changeable(call, schedule)
    call.match(before.id, before.version)
    call.about(f"schedule/{before.id}", until=None if body.until is None else body.until.isoformat())
    with call.backing.catalog.session() as session:
        version = None if call.if_match is None else before.version
        changed = call.backing.schedules.pause(
            before.id, until=body.until, reason=body.reason, version=version, session=session
        )
        call.record(session)
    return _told(changed)


@section.post(
    "/api/backup/schedules/{schedule}/resume",
    needs="schedule:write",
    does="schedule.resume",
    answers={200: ScheduleDocument},
    refuses=(404, 412),
)
def resume_schedule(call: Caller, schedule: Ident) -> Response:
    """End a pause."""
    before = _changeable(call, schedule)
    call.match(before.id, before.version)
    with call.backing.catalog.session() as session:
        version = None if call.if_match is None else before.version
        changed = call.backing.schedules.resume(before.id, version=version, session=session)
        call.record(session)
    return _told(changed)


@section.get("/api/backup/schedules/{schedule}/preview", needs="schedule:read", answers=Times, refuses=(404,))
def preview_schedule(call: Caller, schedule: Ident, asked: Annotated[PreviewQuery, Query()]) -> Response:
    """Tell the next times at which a schedule will run; none if it will not."""
    record = _meant(call, schedule)
    return answer(Times(times=call.backing.schedules.preview(record.id, asked.n)))


def _spec(call: Call, body: AskedSchedule) -> ScheduleSpec:
    """What is asked for, by the names that policies have. Raises NotFound, Forbidden, InvalidRequest."""
    asked = body.model_dump(exclude={"tags", "description", "policy", "sources"})
    options = {"tags": body.tags, "description": body.description}
    if body.type in OF_REPOSITORY:
        call.require(REPOSITORY, seen="schedule:read")
        _require_work(call, body.type, REPOSITORY)
        return ScheduleSpec(**asked, policy=body.policy or "", sources=body.sources, options=options)
    name, policy = policy_named(call, body.policy)
    call.require(policy_scope(name), seen="backup:read", missing=no_policy(name))
    _require_work(call, body.type, policy_scope(name))
    return ScheduleSpec(**asked, policy=name, sources=sources_meant(call, name, policy, body.sources), options=options)


def _require_work(call: Call, kind: str, scope: str) -> None:
    """See that the caller may do now what a schedule will do later. Raises Forbidden."""
    job, _ = TYPES.get(kind, ("backup", None))
    call.also(_WORK[job], scope)


def _meant(call: Call, ident: str) -> ScheduleRecord:
    """A schedule that the caller may do this to. Raises NotFound, Forbidden."""
    missing = NotFound(f"there is no schedule {ident[:80]!r}", hint="`GET /api/backup/schedules` lists them")
    with told_as(missing):
        found = call.backing.schedules.get(ident)
    call.about(f"schedule/{found.id}", policy=found.policy, type=found.type)
    call.require(_scope_of(found), seen="schedule:read", missing=missing)
    return found


def _changeable(call: Call, ident: str) -> ScheduleRecord:
    """A schedule, for those who may do what it does: to let it run, or not, is as much. Raises NotFound, Forbidden."""
    found = _meant(call, ident)
    _require_work(call, found.type, _scope_of(found))
    return found


def _scope_of(record: ScheduleRecord) -> str:
    return policy_scope(record.policy) if record.policy else REPOSITORY


def _told(record: ScheduleRecord) -> Response:
    return answer(schedule_document(record), etag=etag_of(record.id, record.version))


def schedule_document(record: ScheduleRecord) -> ScheduleDocument:
    """A schedule as answers show it."""
    return ScheduleDocument(
        id=record.id,
        name=record.name,
        origin=record.origin,
        policy=record.policy or None,
        type=record.type,
        sources=list(record.sources),
        cron=record.cron,
        timezone=record.timezone,
        enabled=record.enabled,
        coalesce=record.coalesce,
        misfire_grace_s=record.misfire_grace_s,
        jitter_s=record.jitter_s,
        retention_days=record.retention_days,
        tags=list(record.options.get("tags") or ()),
        description=record.options.get("description"),
        paused=record.paused_reason is not None,
        paused_until=record.paused_until,
        paused_reason=record.paused_reason,
        next_run_at=record.next_run_at,
        last_run_at=record.last_run_at,
        last_job_id=record.last_job_id,
        last_missed=record.last_missed,
        created_at=record.created_at,
        updated_at=record.updated_at,
    )
