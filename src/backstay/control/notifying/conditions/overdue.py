"""Sources whose newest backup, verification or rehearsal is too old."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final, Literal

from backstay.control.metrics.freshness import freshness
from backstay.control.metrics.sources import Key, newest
from backstay.control.notifying.conditions.condition import Condition, Look, told_length, told_time

_Kind = Literal["verification_overdue", "rehearsal_overdue"]
_WORDS: Final[Mapping[_Kind, tuple[str, str]]] = {
    "verification_overdue": ("verified", "look why the verifications of its policy do not run, or run one now"),
    "rehearsal_overdue": ("restored to try it", "look why the rehearsals of its policy do not run, or run one now"),
}


def backups_overdue(look: Look) -> Iterator[Condition]:
    """Each source whose newest good backup is older than it may be."""
    for one in freshness(look.session, look.facts, look.expected, look.now):
        age = one.age(look.now)
        if age is None:  # a source that is new and has no schedule: it is awaited since somebody looks
            age = look.now - look.watched_since
        if one.rpo is None or age <= one.rpo:
            continue
        allowed = f"{told_length(one.rpo)} are allowed"
        if one.newest is not None:
            title = f"{one.source} has no good backup since {told_time(one.newest)}"
            cause = f"the newest is {told_length(age)} old, and {allowed}"
        else:
            title = f"{one.source} has no good backup"
            cause = f"there is none at all, and {allowed}"
        yield Condition(
            kind="rpo_at_risk",
            subject=one.source,
            severity="error",
            title=title,
            ended=f"{one.source} has a good backup again",
            cause=cause,
            solution="look at the last jobs of its policy, mend what keeps them, and run it now",
            policy=one.policy,
        )


def verifications_overdue(look: Look) -> Iterator[Condition]:
    """Each source that should be verified and was not for too long."""
    limits = {
        (policy, source): holds.verification
        for policy, holds in look.expected.policies.items()
        for source in holds.sources
        if holds.verification is not None
    }
    if limits:
        yield from _overdue(look, "verification_overdue", limits, newest(look.facts, "verified_at"))


def rehearsals_overdue(look: Look) -> Iterator[Condition]:
    """Each source that should be restored to try it and was not for too long, or only without success."""
    limits = {
        (policy, source): holds.rehearsal
        for policy, holds in look.expected.policies.items()
        for source in holds.sources
        if holds.rehearsal is not None
    }
    if limits:
        yield from _overdue(look, "rehearsal_overdue", limits, newest(look.facts, "rehearsed_at"))


def _overdue(
    look: Look,
    kind: _Kind,
    limits: Mapping[tuple[str, str], timedelta],
    done: Mapping[Key, datetime],
) -> Iterator[Condition]:
    """A source without any backup is not told of here: that it lacks one is told already.

    One that was never looked at is due when its oldest backup is as old as that.
    """
    first = newest(look.facts, "first_good_at")
    word, solution = _WORDS[kind]
    for (policy, source), limit in limits.items():
        at = done.get((policy, source))
        since = at or first.get((policy, source))
        if since is None or look.now - since <= limit:
            continue
        not_yet = f"was never {word}" if at is None else f"was not {word} since {told_time(at)}"
        yield Condition(
            kind=kind,
            subject=source,
            severity="warning",
            title=f"{source} {not_yet}",
            ended=f"{source} was {word} again",
            cause=f"that should happen every {told_length(limit)}",
            solution=solution,
            policy=policy,
        )
