"""`tier`: keep old data packs in a second, colder store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backstay.cli import jsonout
from backstay.cli.context import Context, context_of
from backstay.cli.options import flag, option
from backstay.cli.render import print_pairs
from backstay.core.environment import expanded
from backstay.core.quantities import format_duration, format_size, plural
from backstay.errors import CorruptedBackup, InvalidRequest

if TYPE_CHECKING:
    from backstay.operations.tiers.cold_packs import ColdNeed
    from backstay.operations.tiers.moving import MovePlan, MoveResult, TierStatus

AT_ONCE = "0d"
DAYS_HELP = "Keep what is thawed readable for N days."
NO_WAIT_HELP = "Ask the archive for what is frozen, and end instead of waiting."


def tier_set(
    ctx: typer.Context,
    cold: Annotated[str, option("ADDRESS", "The cold store: a directory, perhaps of a disk in a drawer, or a URL.")],
    after: Annotated[
        str, option("DUR", "Packs of this age are moved, such as 30d; else at once.", show_default=False)
    ] = AT_ONCE,
) -> int:
    """Set where old data packs belong, and from which age on."""
    from backstay.operations.tiers.moving import set_tier, tier_status

    context = context_of(ctx)
    address, seconds = _absolute(cold), _seconds(after)
    with context.open(index=False) as repository:
        set_tier(repository, address, seconds)
    with context.open(index=False) as repository:
        status = tier_status(repository)
    context.result(jsonout.plain(status), lambda: _show_status(context, status))
    return 0


def tier_show(ctx: typer.Context) -> int:
    """Tell where the cold tier is, and what lies in it."""
    from backstay.operations.tiers.moving import tier_status

    context = context_of(ctx)
    with context.open(index=False) as repository:
        status = tier_status(repository)
    context.result(jsonout.plain(status), lambda: _show_status(context, status))
    return 0


def tier_move(
    ctx: typer.Context,
    dry_run: Annotated[bool, flag("Only tell what would be moved.", "--dry-run", "-n")] = False,
) -> int:
    """Move data packs that are old enough into the cold tier."""
    from backstay.operations.tiers.moving import plan_move, run_move

    context = context_of(ctx)
    with context.open() as repository, context.watching() as events:
        plan = plan_move(repository)
        result = None if dry_run else run_move(repository, plan, events=events)
    return _moved(context, plan, result, "moved to the cold tier")


def tier_recall(
    ctx: typer.Context,
    dry_run: Annotated[bool, flag("Only tell what would be brought back.", "--dry-run", "-n")] = False,
    no_wait: Annotated[bool, flag(NO_WAIT_HELP, "--no-wait")] = False,
    thaw_days: Annotated[int, option("N", DAYS_HELP, min=1, max=365, show_default=True)] = 7,
) -> int:
    """Bring all data packs back from the cold tier."""
    from backstay.operations.tiers.moving import plan_recall, run_recall

    context = context_of(ctx)
    with context.open(index=False) as repository, context.watching() as events:
        plan = plan_recall(repository)
        result = None if dry_run else run_recall(repository, plan, days=thaw_days, wait=not no_wait, events=events)
    return _moved(context, plan, result, "brought back")


def tier_remove(ctx: typer.Context) -> int:
    """End the cold tier; all packs must have been brought back."""
    from backstay.operations.tiers.moving import remove_tier

    context = context_of(ctx)
    with context.open(index=False) as repository:
        address = repository.tiered.cold.address if repository.tiered is not None else ""
        remove_tier(repository)
    context.result(
        {"removed": address},
        lambda: context.say(f"the repository has no cold tier any more; what lies at {address} may be deleted"),
    )
    return 0


def _absolute(address: str) -> str:
    """The address as it is to be remembered: a path as a whole one."""
    from backstay.storage.registry import has_scheme

    if not address:
        raise InvalidRequest("the address of the cold tier is empty", hint="give a directory or a URL")
    return address if has_scheme(address) else str(expanded(Path(address)).absolute())


def _seconds(text: str) -> int:
    """How long `30d` is; months and years by the calendar from an ordinary day on."""
    from backstay.core.times import Span

    return round(Span.parse(text).length_before(datetime(2025, 1, 1, tzinfo=UTC)).total_seconds())


def _show_status(context: Context, status: TierStatus) -> None:
    if status.damage:
        context.warn(f"where the cold tier is cannot be read: {status.damage}")
        context.say("`backstay tier set --cold ADDRESS` tells it again")
        return
    if status.cold is None:
        context.say("the repository has no cold tier; `backstay tier set --cold ADDRESS` sets one")
        return
    attached = {True: "yes", False: "no", None: "it gives no answer"}[status.attached]
    age = f"when they are {format_duration(status.after_s)} old" if status.after_s else "at once"
    rows = [
        ("Cold tier", status.cold),
        ("Attached", attached),
        ("Packs are moved", age),
        ("Hot", f"{plural(status.hot_packs, 'data pack')} with {format_size(status.hot_bytes)}"),
        ("Cold", f"{plural(status.cold_packs, 'data pack')} with {format_size(status.cold_bytes)}"),
    ]
    print_pairs(rows, context.environ)


def _moved(context: Context, plan: MovePlan, result: MoveResult | None, done: str) -> int:
    document: dict[str, object] = {
        "dry_run": result is None,
        "packs": len(plan.packs) if result is None else result.packs,
        "bytes": plan.bytes if result is None else result.bytes,
        "waiting": plan.waiting,
        "findings": [] if result is None else jsonout.plain(result.findings),
    }

    def show() -> None:
        if result is None:
            context.say(f"{plural(len(plan.packs), 'pack')} with {format_size(plan.bytes)} would be {done}")
        else:
            context.say(f"{plural(result.packs, 'pack')} with {format_size(result.bytes)} {done}")
            for finding in result.findings:
                context.warn(f"{finding.subject}: {finding.message}")
        if plan.waiting:
            context.say(f"{plural(plan.waiting, 'pack is', 'packs are')} too young")

    context.result(document, show)
    return CorruptedBackup.exit_status if result is not None and result.findings else 0


def need_document(need: ColdNeed) -> dict[str, object]:
    """What a plan needs of the cold tier, for programs."""
    return {
        "address": need.address,
        "attached": need.attached,
        "packs": len(need.packs),
        "bytes": need.bytes,
        "packs_to_thaw": len(need.frozen) + len(need.thawing),
        "packs_thawing": len(need.thawing),
        "bytes_to_thaw": need.bytes_to_wait_for,
        "usual_s": need.usual_s if need.frozen or need.thawing else 0.0,
    }


def show_need(context: Context, need: ColdNeed) -> None:
    """What must be attached, or thawed, how much of it, and how long that takes."""
    context.say(f"{plural(len(need.packs), 'pack')} with {format_size(need.bytes)} lie in the cold tier {need.address}")
    if not need.attached:
        context.say("  it is not attached: attach it before the restore")
    waiting = len(need.frozen) + len(need.thawing)
    if waiting:
        context.say(
            f"  {waiting} of them must be thawed, with "
            f"{format_size(need.bytes_to_wait_for)}: this usually takes {format_duration(need.usual_s)}"
        )
