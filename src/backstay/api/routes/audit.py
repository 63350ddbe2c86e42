"""The audit log: who did what, and what was refused."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Query, Response
from pydantic import Field
from typing_extensions import TypedDict

from backstay.api.answers import answer, page
from backstay.api.call import Caller
from backstay.api.endpoints import Section
from backstay.api.models.base import Line, Moment, Paged, PageOf
from backstay.catalog.audit import AuditFilters
from backstay.catalog.models import AuditEntry
from backstay.control.access.scopes import EVERYTHING

section = Section("audit")


class AuditQuery(Paged):
    """Which entries; what is left out does not choose."""

    actor: Line | None = None
    action: Line | None = None
    object: Annotated[Line | None, Field(description="how it begins")] = None
    outcome: Literal["allow", "deny", "error"] | None = None
    since: Moment | None = None
    until: Moment | None = None


class EntryOfLog(TypedDict):
    """One operation or one refusal; `hash` binds it to all before it."""

    seq: int
    time: datetime
    actor: str
    actor_details: dict[str, Any]
    action: str
    object: str
    outcome: str
    reason: str
    details: dict[str, Any]
    prev_hash: str
    hash: str


class Verdict(TypedDict):
    """Whether the log is as it was written; `broken` is the first entry that is not."""

    ok: bool
    entries: int
    head: str
    checkpoints: int
    broken: int | None
    problem: str


@section.get("/api/audit", needs="audit:read", answers=PageOf[EntryOfLog])
def list_audit(call: Caller, asked: Annotated[AuditQuery, Query()]) -> Response:
    """Show the audit log, the newest entry first."""
    call.require(EVERYTHING, seen="audit:read")
    filters = AuditFilters(**asked.model_dump(exclude={"limit", "cursor"}))
    found = call.backing.audit.page(filters, asked.limit, asked.cursor)
    return page([_entry(entry) for entry in found.items], found.next)


@section.get("/api/audit/verify", needs="audit:read", answers=Verdict, does="audit.verify", slow=True)
def verify_audit(call: Caller) -> Response:
    """See whether the whole log is as it was written.

    Also as the checkpoints saw it that the service keeps outside of the catalog.
    """
    call.require(EVERYTHING, seen="audit:read")
    found = call.backing.service.verify_audit_log()
    return answer(
        Verdict(
            ok=found.ok,
            entries=found.entries,
            head=found.head,
            checkpoints=found.checkpoints,
            broken=found.broken,
            problem=found.problem,
        )
    )


def _entry(entry: AuditEntry) -> EntryOfLog:
    return EntryOfLog(
        seq=entry.seq,
        time=entry.time,
        actor=entry.actor,
        actor_details=entry.actor_details,
        action=entry.action,
        object=entry.object,
        outcome=entry.outcome,
        reason=entry.reason,
        details=entry.details,
        prev_hash=entry.prev_hash,
        hash=entry.hash,
    )
