"""Policies and their sources, as the policy file says them, and what their retention would do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, cast

from fastapi import Response
from sqlalchemy import func, select

from backstay.api.answers import answer, page
from backstay.api.call import Call, Caller
from backstay.api.endpoints import Section
from backstay.api.known import no_policy, policies_of, policy_named, policy_names
from backstay.api.models.base import Ident, PageOf, PageQuery
from backstay.api.models.policies import (
    DecisionDocument,
    MonitorDocument,
    PolicyDetail,
    PolicyDocument,
    PreviewRetention,
    RetentionPreview,
    SourceDocument,
)
from backstay.api.paging import part_of
from backstay.catalog.models import Backup
from backstay.control.access.scopes import policy_scope, source_scope
from backstay.control.metrics.monitor import monitor_status
from backstay.control.policies.effective import effective, next_times
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.policies.policy import Retention
from backstay.control.policies.showing import as_document, show
from backstay.core.times import Span
from backstay.errors import InvalidRequest
from backstay.operations.retention.rules import Decision, RetentionRules, decide

section = Section("policies")
_SHOWN: Final = 1000  # decisions in one answer


@section.get("/api/policies", needs="policy:read", answers=PageOf[PolicyDocument])
def list_policies(call: Caller, asked: PageQuery) -> Response:
    """List the policies with their next runs and how their backups are."""
    loaded = policies_of(call)
    names = [name for name in policy_names(call) if call.principal.may("policy:read", policy_scope(name))]
    shown, following = part_of(names, lambda name: name, asked)
    return page([_document(call, loaded, name) for name in shown if loaded is not None], following)


@section.post("/api/policies/preview", needs="policy:read", does=None, answers={200: RetentionPreview}, refuses=(404,))
def preview_retention(call: Caller, body: PreviewRetention) -> Response:
    """Tell which backups of a policy its retention would keep and which it would drop, or other rules would."""
    name, policy = policy_named(call, body.policy)
    call.require(policy_scope(name), seen="policy:read", missing=no_policy(name))
    loaded = policies_of(call)
    assert loaded is not None
    found = effective(policy, loaded.content.backup_manager)
    rules = _rules(body, found.retention)
    with call.backing.catalog.reading() as session:
        rows = list(session.scalars(select(Backup).where(Backup.policy == name, Backup.damaged.is_(False))))
    now = body.at or call.backing.clock.now()
    decisions = decide([_Candidate(row) for row in rows], rules, now=now, zone=found.zone)
    told = [_decided(decision) for decision in decisions]
    dropped = [decision for decision, one in zip(decisions, told, strict=True) if not one["keep"]]
    return answer(
        RetentionPreview(
            policy=name,
            kept=len(told) - len(dropped),
            dropped=len(dropped),
            dropped_bytes=sum(decision.candidate.row.stored_bytes for decision in dropped),
            decisions=told[:_SHOWN],
        )
    )


@section.get("/api/policies/{policy}", needs="policy:read", answers=PolicyDetail, refuses=(404,))
def get_policy(call: Caller, policy: Ident) -> Response:
    """Tell all that holds for a policy, and who says it; what is secret is hidden."""
    name, _ = policy_named(call, policy)
    call.require(policy_scope(name), seen="policy:read", missing=no_policy(name))
    loaded = policies_of(call)
    assert loaded is not None
    shown = cast("dict[str, Any]", as_document(show(loaded, name)))
    return answer({**_document(call, loaded, name), "effective": shown["policies"][name]})


@section.get("/api/sources", needs="policy:read", answers=PageOf[SourceDocument])
def list_sources(call: Caller, asked: PageQuery) -> Response:
    """List the sources of all policies with their newest backups."""
    loaded, found = policies_of(call), []
    for name in policy_names(call):
        assert loaded is not None
        for origin in loaded.policy(name).sources:
            whole = origin.snapshot_name(name)
            if call.principal.may("policy:read", source_scope(name, whole)):
                found.append((name, origin.name, whole, origin.type))
    shown, following = part_of(found, lambda one: f"{one[0]}\n{one[2]}", asked)
    return page([_source(call, *one) for one in shown], following)


@section.get("/api/monitor", needs="backup:read", answers=MonitorDocument)
def monitor(call: Caller) -> Response:
    """Tell how the backups of all policies together are."""
    call.require("/", seen="backup:read")
    return answer(_monitor(call, None))


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A row as the rules look at it."""

    row: Backup

    @property
    def id(self) -> str:
        return self.row.id

    @property
    def time(self) -> datetime:
        return self.row.time

    @property
    def host(self) -> str:
        return self.row.host

    @property
    def source(self) -> str:
        return self.row.source

    @property
    def tags(self) -> list[str]:
        return self.row.tags


def _rules(body: PreviewRetention, own: Retention | None) -> RetentionRules:
    """The rules that were given, else those of the policy. Raises InvalidRequest."""
    if body.rules is not None:
        given, within = body.rules.model_dump(exclude={"keep_within", "keep_tags"}), body.rules.keep_within
        span = None if within is None else Span.parse(within)
        return RetentionRules(**given, keep_within=span, keep_tags=tuple(body.rules.keep_tags))
    if own is None:
        raise InvalidRequest("the policy has no retention", cause="it keeps everything", hint="give `rules`")
    return own.rules()


def _decided(decision: Decision[_Candidate]) -> DecisionDocument:
    row = decision.candidate.row
    held = row.held and not decision.keep
    return DecisionDocument(
        backup_id=row.id,
        source=row.source,
        time=row.time,
        keep=decision.keep or held,
        reasons=["held"] if held else list(decision.reasons),
    )


def _document(call: Call, loaded: LoadedPolicies, name: str) -> PolicyDocument:
    policy = loaded.policy(name)
    found = effective(policy, loaded.content.backup_manager)
    return PolicyDocument(
        name=name,
        description=policy.description,
        tags=list(policy.tags),
        sources=[origin.snapshot_name(name) for origin in policy.sources],
        next_runs=next_times(found, call.backing.clock.now()),
        monitor=_monitor(call, name),
    )


def _monitor(call: Call, policy: str | None) -> MonitorDocument:
    status = monitor_status(call.backing.catalog, policy)
    return MonitorDocument(
        status=status.status,
        last_backup=status.last_backup,
        size=status.size,
        duration=status.duration,
        errors=[asdict(error) for error in status.errors],
    )


def _source(call: Call, policy: str, name: str | None, whole: str, kind: str) -> SourceDocument:
    of_source = (Backup.policy == policy, Backup.source == whole, Backup.damaged.is_(False))
    with call.backing.catalog.reading() as session:
        count = session.scalar(select(func.count()).select_from(Backup).where(*of_source)) or 0
        last = session.scalar(select(Backup).where(*of_source).order_by(Backup.time.desc(), Backup.id.desc()).limit(1))
    return SourceDocument(
        policy=policy,
        name=name,
        snapshot_name=whole,
        type=kind,
        backups=count,
        last_backup_id=None if last is None else last.id,
        last_backup_at=None if last is None else last.time,
        last_bytes=None if last is None else last.bytes,
    )
