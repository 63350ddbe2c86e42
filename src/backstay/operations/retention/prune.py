"""Drop snapshots by retention rules, and the WAL that nothing needs then; a plan first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from functools import partial

from backstay.core.events import EventSink, ignore
from backstay.operations.retention.rules import Decision, RetentionRules, decide
from backstay.operations.wal.bases import damage_of, is_base
from backstay.operations.wal.expire import ExpiryResult, WalExpiry, expire_wal, plan_expiries
from backstay.repository.collection.reserve import with_reserve
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What stays and what goes, each with its reasons; `wal` says it of each cluster of which WAL is stored."""

    decisions: Sequence[Decision[Manifest]]
    wal: Sequence[WalExpiry] = ()

    @property
    def kept(self) -> list[Decision[Manifest]]:
        return [decision for decision in self.decisions if decision.keep]

    @property
    def dropped(self) -> list[Decision[Manifest]]:
        return [decision for decision in self.decisions if not decision.keep]


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneResult:
    """The snapshots that were dropped, and what became of the WAL: as the plan's `wal`, in its order."""

    dropped: tuple[str, ...]
    wal: tuple[ExpiryResult, ...]


def plan_prune(
    repository: Repository,
    rules: RetentionRules,
    *,
    now: datetime,
    zone: tzinfo,
    wal_window: timedelta | None = None,
    only: Collection[str] | None = None,
) -> PrunePlan:
    """Decide about every snapshot and about WAL; changes nothing. Raises InvalidRequest without any rule.

    WAL goes as `wal.expire` says, once what is dropped is gone. With `only`, ids of snapshots, nothing is decided
    about others, and WAL stays: no rule counts what it is not about.
    """
    held = repository.snapshots.holds.held()
    manifests = repository.snapshots.shown()
    newest = _newest_bases(manifests)
    decisions = [
        _spared(found, held=found.candidate.id in held, is_newest_base=found.candidate.id in newest)
        for found in decide([one for one in manifests if only is None or one.id in only], rules, now=now, zone=zone)
    ]
    if only is not None:
        return PrunePlan(decisions)
    doomed = {found.candidate.id for found in decisions if not found.keep}
    return PrunePlan(decisions, plan_expiries(repository, without=doomed, window=wal_window))


def _spared(decision: Decision[Manifest], *, held: bool, is_newest_base: bool) -> Decision[Manifest]:
    """The same, but that it stays where something outweighs the rules."""
    reasons = decision.reasons if decision.keep else ()
    if is_newest_base:
        reasons = (*reasons, f"newest base backup of {decision.candidate.name}")
    if held:
        reasons = (*reasons, "it is held")
    return replace(decision, keep=True, reasons=reasons) if held or is_newest_base else decision


def _newest_bases(manifests: Iterable[Manifest]) -> set[str]:
    """Of each name of a cluster the newest base backup: the next one is built upon it, and its WAL leads to now.

    One that is damaged does not count: it is the newest good one that the rest must be recovered from.
    """
    newest: dict[tuple[str, str | None], Manifest] = {}
    for manifest in manifests:
        if not is_base(manifest) or damage_of(manifest):
            continue
        key = (manifest.source, manifest.name)
        newest[key] = max(newest.get(key, manifest), manifest, key=lambda found: (found.time_ns, found.id))
    return {manifest.id for manifest in newest.values()}


def execute_prune(repository: Repository, plan: PrunePlan, *, events: EventSink = ignore) -> PruneResult:
    """Drop what the plan drops, oldest first, so that stopping in the middle leaves the newer ones; then its WAL.

    A crash between leaves WAL that nothing needs, which the next plan names.
    """
    doomed = sorted(plan.dropped, key=lambda decision: decision.candidate.time_ns)
    for decision in doomed:
        reason = "; ".join(decision.reasons)
        drop = partial(repository.snapshots.drop, decision.candidate.id, f"pruned: {reason}", repository.clock)
        with_reserve(repository, drop)
    return PruneResult(
        dropped=tuple(decision.candidate.id for decision in doomed),
        wal=tuple(expire_wal(repository, expiry, events=events) for expiry in plan.wal),
    )
