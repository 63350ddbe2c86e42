"""What stays and what goes: deletions by hand, by the rules of a policy, and of what nothing needs any more."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, tzinfo
from functools import partial
from typing import Any

from backstay.control.policies.effective import Effective
from backstay.core.events import EventSink
from backstay.core.times import Span
from backstay.errors import InvalidRequest
from backstay.operations.retention.prune import execute_prune, plan_prune
from backstay.operations.retention.rules import RetentionRules
from backstay.repository.collection.collector import Collector
from backstay.repository.collection.plan import CollectionPlan, CollectionResult
from backstay.repository.collection.reserve import with_reserve
from backstay.repository.repository import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What the rules keep and what they drop, by ids, each with its reasons."""

    dry_run: bool
    kept: dict[str, tuple[str, ...]]
    dropped: dict[str, tuple[str, ...]]


def drop(repository: Repository, ids: Sequence[str], reason: str) -> None:
    """Drop snapshots, all or none as far as holds are concerned. Raises HoldViolation, NotFound."""
    repository.snapshots.holds.require_free(ids)
    for ulid in ids:
        with_reserve(repository, partial(repository.snapshots.drop, ulid, reason, repository.clock))


def rules_of(holds: Effective, name: str, days: int | None) -> RetentionRules:
    """The rules of a policy. Raises InvalidRequest when there are none."""
    found = holds.retention
    if found is None and days is None:
        raise InvalidRequest(
            f"the policy {name!r} keeps everything",
            cause="neither it nor `backup_manager` has a `retention`",
            hint="write one, for example retention: {keep_daily: 7}",
        )
    rules = None if found is None else found.rules()
    if rules is None:
        return RetentionRules(keep_within=Span(days=days or 1))
    return rules if days is None or rules.keep_within else replace(rules, keep_within=Span(days=days))


def prune(
    repository: Repository,
    rules: RetentionRules,
    names: Collection[str],
    *,
    now: datetime,
    zone: tzinfo,
    dry_run: bool,
    events: EventSink,
) -> Pruned:
    """Decide about the snapshots of some names, of whatever host, and drop what no rule keeps."""
    ours = {one.id for one in repository.snapshots.shown() if one.name in names}
    plan = plan_prune(repository, rules, now=now, zone=zone, only=ours, events=events)
    if not dry_run:
        execute_prune(repository, plan, events=events)
    return Pruned(
        dry_run=dry_run,
        kept={decision.candidate.id: decision.reasons for decision in plan.kept},
        dropped={decision.candidate.id: decision.reasons for decision in plan.dropped},
    )


def collect(
    repository: Repository, *, dry_run: bool, allow_empty: bool, events: EventSink
) -> CollectionPlan | CollectionResult:
    """Free what nothing needs, or say what that would be. Raises CollectionBusy."""
    collector = Collector(repository, events=events)
    plan = collector.plan(allow_empty=allow_empty)
    return plan if dry_run else collector.execute(plan)


def collection_document(found: CollectionPlan | CollectionResult) -> dict[str, Any]:
    """The numbers of a collection."""
    if isinstance(found, CollectionResult):
        until = found.retained_until
        lists = {"fenced": [*found.fenced], "waiting_for": [*found.waiting_for]}
        return asdict(found) | lists | {"retained_until": None if until is None else until.isoformat()}
    return {"packs": found.total_packs, "bytes": found.total_bytes, "bytes_to_free": found.freed_bytes}
