"""`pg expire`, and what it has in common with `prune`: which WAL goes, which stays, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from backstay.cli.context import Context, context_of
from backstay.cli.options import flag, option
from backstay.cli.render import print_heading
from backstay.core.quantities import plural
from backstay.core.times import Span
from backstay.errors import InvalidRequest

if TYPE_CHECKING:
    from backstay.operations.wal.expire import ExpiryResult, WalExpiry


def pg_expire(
    ctx: typer.Context,
    name: Annotated[str, option("NAME", "What the cluster is called in the repository.")],
    window: Annotated[
        str | None, option("SPAN", "Keep all WAL with which so much time can be recovered, such as 14d; else all.")
    ] = None,
    abandoned: Annotated[
        bool, flag("Remove all WAL of a cluster whose base backups were all deleted.", "--all")
    ] = False,
    dry_run: Annotated[bool, flag("Only tell what would be removed.", "--dry-run", "-n")] = False,
) -> int:
    """Remove WAL that no base backup and no recovery within the window needs; `prune` does it too."""
    from backstay.operations.wal.expire import expire_wal, plan_abandonment, plan_expiry

    context = context_of(ctx)
    length = window_length(context, window)
    if abandoned and window is not None:
        raise InvalidRequest("--all leaves no window", cause="--window is given with it", hint="give one of them")
    with context.open(index=False) as repository:
        with context.watching() as events:
            plan = (
                plan_abandonment(repository, name)
                if abandoned
                else plan_expiry(repository, name, window=length, events=events)
            )
        result = None
        if not dry_run:
            with context.watching() as events:
                result = expire_wal(repository, plan, events=events)

    def show() -> None:
        show_plans(context, [plan])
        tell_results(context, [plan], None if result is None else [result])

    context.result({**document(plan, result), "dry_run": dry_run}, show)
    return 0


def window_length(context: Context, text: str | None) -> timedelta | None:
    """How much time must stay recoverable. Raises InvalidRequest."""
    return None if text is None else Span.parse(text).length_before(context.clock.now())


def document(plan: WalExpiry, result: ExpiryResult | None) -> dict[str, object]:
    """One cluster for programs; without a result nothing was done."""
    return {
        **dataclasses.asdict(plan),
        "system": str(plan.system),  # more digits than numbers of JSON safely have
        "removed": 0 if result is None else result.removed,
        "waiting_for": () if result is None else result.waiting_for,
    }


def show_plans(context: Context, plans: Sequence[WalExpiry]) -> None:
    """What is planned for each cluster, with the reason, in the order of the segments."""
    for plan in plans:
        if not context.talks:
            continue
        print_heading(f"WAL of {_told(plan)}", context.environ)
        if plan.expired:
            span = plan.expired[0] if len(plan.expired) == 1 else f"{plan.expired[0]} to {plan.expired[-1]}"
            context.say(f"  drop  {plural(len(plan.expired), 'segment')}, {span}: {_why_gone(plan)}")
        if plan.kept:
            context.say(f"  keep  {plural(plan.kept, 'segment')}: {_why_kept(plan)}")


def tell_results(context: Context, plans: Sequence[WalExpiry], results: Sequence[ExpiryResult] | None) -> None:
    """What became of them, in a line; a restore that is waited for is a warning."""
    if results is None:
        count = sum(len(plan.expired) for plan in plans)
        context.say(f"{plural(count, 'WAL segment')} would be removed")
        return
    context.say(f"{plural(sum(result.removed for result in results), 'WAL segment')} removed")
    waiting = sorted({told for result in results for told in result.waiting_for})
    if waiting:
        context.warn(
            f"WAL was left for a restore that runs ({', '.join(waiting)}): do the same again when it has ended"
        )


def _told(plan: WalExpiry) -> str:
    cluster = f"cluster {plan.system}"
    return f"{', '.join(plan.names)} ({cluster})" if plan.names else cluster


def _why_gone(plan: WalExpiry) -> str:
    if plan.since is None:
        return "no base backup of the cluster exists"
    if _has_one_start(plan):
        return f"no recovery needs what lies before {plan.from_lsn}, where base backup {plan.since} begins"
    starts = (
        f"{needed.from_lsn} on the way to timeline {needed.timeline}, where base backup {needed.since} begins"
        for needed in plan.timelines
    )
    return f"no recovery needs what lies before {'; or before '.join(starts)}"


def _why_kept(plan: WalExpiry) -> str:
    if plan.doubt:
        return f"it cannot be told what is needed: {plan.doubt}"
    if plan.since is None:
        waits = "it waits for a base backup, of which there is none"
        return f"{waits}; `backstay pg expire --name {plan.names[0]} --all` removes it" if plan.names else waits
    starts = [f"{needed.from_lsn} on the way to timeline {needed.timeline}" for needed in plan.timelines]
    told = plan.from_lsn if _has_one_start(plan) else " and from ".join(starts)
    return f"all from {told} on, and what makes older base backups consistent"


def _has_one_start(plan: WalExpiry) -> bool:
    return len({needed.since for needed in plan.timelines}) == 1
