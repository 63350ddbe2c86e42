"""Drop snapshots by retention rules, and the WAL that nothing needs then; a plan first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, tzinfo
from functools import partial

from backstay.core.events import EventSink, Warned, ignore
from backstay.errors import CorruptedBackup
from backstay.operations.retention.rules import Decision, RetentionRules, decide
from backstay.operations.wal.bases import Base, base_of, is_base, sound
from backstay.operations.wal.coverage import WalCoverage
from backstay.operations.wal.expire import ExpiryResult, WalExpiry, expire_wal, plan_expiries
from backstay.operations.wal.ways import current_ways
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
    events: EventSink = ignore,
) -> PrunePlan:
    """Decide about every snapshot and about WAL; changes nothing.

    WAL goes as `wal.expire` says, once what is dropped is gone. With `only`, ids of snapshots, nothing is decided
    about others, and WAL stays: no rule counts what it is not about. All base backups of a cluster stay, and its WAL,
    with a warning, where a history is damaged, which says which of them are needed. Raises InvalidRequest without any
    rule, and CorruptedBackup when a snapshot cannot be read.
    """
    held = repository.snapshots.holds.held()
    manifests = repository.snapshots.shown()
    since = None if wal_window is None else repository.clock.now() - wal_window
    chosen = [one for one in manifests if only is None or one.id in only]
    needed = _needed_bases(repository, manifests, chosen, since, events)
    decisions = [
        _spared(found, held=found.candidate.id in held, needed=needed.get(found.candidate.id, ""))
        for found in decide(chosen, rules, now=now, zone=zone)
    ]
    if only is not None:
        return PrunePlan(decisions)
    doomed = {found.candidate.id for found in decisions if not found.keep}
    return PrunePlan(decisions, plan_expiries(repository, without=doomed, window=wal_window, events=events))


def _spared(decision: Decision[Manifest], *, held: bool, needed: str) -> Decision[Manifest]:
    """The same, but that it stays where something outweighs the rules."""
    reasons = decision.reasons if decision.keep else ()
    if needed:
        reasons = (*reasons, needed)
    if held:
        reasons = (*reasons, "it is held")
    return replace(decision, keep=True, reasons=reasons) if held or needed else decision


def _needed_bases(
    repository: Repository,
    manifests: Iterable[Manifest],
    chosen: Iterable[Manifest],
    since: datetime | None,
    events: EventSink,
) -> dict[str, str]:
    """Of the clusters of some snapshots the base backups that stay whatever the rules say, with the reason.

    Raises CorruptedBackup.
    """
    bases = [base_of(manifest) for manifest in manifests if is_base(manifest)]
    found: dict[str, str] = {}
    for system in sorted({base_of(manifest).system for manifest in chosen if is_base(manifest)}):
        own = [base for base in bases if base.system == system]
        coverage = WalCoverage.load(repository.wal, system, segment_size=own[0].segment_size)
        try:
            found.update(newest_bases(coverage, sound(own), since))
        except CorruptedBackup as error:
            names = ", ".join(sorted({base.name for base in own}))
            events(Warned(message=f"all base backups of {names} stay, it cannot be told which are needed: {error}"))
            found.update((base.snapshot, f"it cannot be told whether it is needed: {error}") for base in own)
    return found


def newest_bases(coverage: WalCoverage, bases: Sequence[Base], since: datetime | None) -> dict[str, str]:
    """Of some base backups of a cluster that are whole, the newest of each name: the next one is built upon it; and the
    newest on the way to each timeline that goes on, or has since a moment: its WAL is worth nothing without.
    """
    found: dict[str, str] = {}
    for way in current_ways(coverage, bases, since):
        base = way.bases[-1]
        found[base.snapshot] = f"newest base backup of {base.name} on the way to timeline {way.timeline}"
    newest = {base.name: base for base in sorted(bases, key=lambda base: (base.stop_time, base.snapshot))}
    return found | {base.snapshot: f"newest base backup of {name}" for name, base in newest.items()}


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
