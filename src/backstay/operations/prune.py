"""Drop snapshots by retention rules; a plan first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from functools import partial

from backstay.operations.retention import Decision, RetentionRules, decide
from backstay.repository.repository import Repository
from backstay.repository.reserve import with_reserve
from backstay.repository.snapshots import Manifest


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What stays and what goes, each with its reasons."""

    decisions: Sequence[Decision[Manifest]]

    @property
    def kept(self) -> list[Decision[Manifest]]:
        return [decision for decision in self.decisions if decision.keep]

    @property
    def dropped(self) -> list[Decision[Manifest]]:
        return [decision for decision in self.decisions if not decision.keep]


def plan_prune(repository: Repository, rules: RetentionRules, *, now: datetime, zone: tzinfo) -> PrunePlan:
    """Decide about every snapshot; changes nothing. Raises InvalidRequest without any rule."""
    held = repository.snapshots.holds.held()
    decisions = decide(repository.snapshots.live(), rules, now=now, zone=zone)
    return PrunePlan([_held(found) if found.candidate.id in held else found for found in decisions])


def _held(decision: Decision[Manifest]) -> Decision[Manifest]:
    """The same, but that it stays: a hold is no rule, and outweighs all of them."""
    reasons = (*decision.reasons, "it is held") if decision.keep else ("it is held",)
    return Decision(candidate=decision.candidate, keep=True, reasons=reasons)


def execute_prune(repository: Repository, plan: PrunePlan) -> list[str]:
    """Drop what the plan drops, oldest first, so that stopping in the middle leaves the newer ones."""
    doomed = sorted(plan.dropped, key=lambda decision: decision.candidate.time_ns)
    for decision in doomed:
        reason = "; ".join(decision.reasons)
        drop = partial(repository.snapshots.drop, decision.candidate.id, f"pruned: {reason}", repository.clock)
        with_reserve(repository, drop)
    return [decision.candidate.id for decision in doomed]
