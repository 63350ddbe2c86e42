"""`retain` and `hold`: keep locked what snapshots need, and keep snapshots from being deleted."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from backstay.cli import choosing, jsonout
from backstay.cli.context import Context, context_of
from backstay.cli.options import SNAPSHOT_HELP, argument, flag, option
from backstay.cli.render import local_time, print_table
from backstay.cli.wal_expiry import window_length
from backstay.core.clock import datetime_from_ns
from backstay.core.quantities import plural

if TYPE_CHECKING:
    from backstay.operations.locks.extend import ExtensionPlan, ExtensionResult

BELOW = 50


def retain(
    ctx: typer.Context,
    below: Annotated[
        int, option("PERCENT", "Extend locks with less of their days left.", min=1, max=100, show_default=True)
    ] = BELOW,
    window: Annotated[
        str | None,
        option(
            "SPAN",
            "Of databases extend the WAL and binary logs with which so much time can be recovered, such as 14d; "
            "else all that can be recovered with from any snapshot.",
        ),
    ] = None,
    dry_run: Annotated[bool, flag("Only tell what would be extended.", "--dry-run", "-n")] = False,
) -> int:
    """Extend the store's locks of all that snapshots need, and logs of databases; each backup does it for its own."""
    from backstay.operations.locks.extend import plan_extension, run_extension
    from backstay.operations.retention.logs import needed_logs

    context = context_of(ctx)
    length = window_length(context, window)
    with context.open() as repository, context.watching() as events:
        kept = repository.snapshots.live()
        logs = needed_logs(repository, kept, window=length, events=events)
        plan = plan_extension(repository, kept, logs=logs, share=below / 100, events=events)
        result = None if dry_run else run_extension(repository, plan, events=events)
    context.result(_document(plan, result), lambda: _show(context, plan, result))
    return 0


def _document(plan: ExtensionPlan, result: ExtensionResult | None) -> dict[str, object]:
    return {
        "dry_run": result is None,
        "due": plan.due,
        "locked": plan.locked,
        "extended": 0 if result is None else result.extended,
        "places": [
            {
                "address": place.address,
                "days": place.days,
                "until": place.until,
                "due": len(place.due),
                "locked": place.locked,
            }
            for place in plan.places
        ],
    }


def _show(context: Context, plan: ExtensionPlan, result: ExtensionResult | None) -> None:
    for place in plan.places:
        verb = "would be locked" if result is None else "locked"
        context.say(f"{place.address}: {plural(len(place.due), 'object')} {verb} until {place.until:%Y-%m-%d}")
        context.say(f"  {plural(place.locked, 'other is', 'others are')} locked for long enough")
    if result is not None and result.gone:
        context.say(f"{plural(result.gone, 'object was', 'objects were')} collected meanwhile")


def hold_set(
    ctx: typer.Context,
    snapshot: Annotated[str, argument("ID", SNAPSHOT_HELP)],
    reason: Annotated[
        str, option("TEXT", "Why; whoever wants to delete the snapshot is told. It replaces the reason of a hold.")
    ] = "",
) -> int:
    """Let nobody delete a snapshot, until the hold is cleared."""
    from backstay.operations.retention.holds import set_hold

    context = context_of(ctx)
    with context.open() as repository, context.watching() as events:
        result = set_hold(repository, choosing.one(context, repository, snapshot), reason, events=events)

    def show() -> None:
        context.say(f"snapshot {result.snapshot} {'is held' if result.changed else 'was held already'}")
        if result.stores:
            context.say(f"  the store holds {plural(result.objects, 'object')}")
        else:
            context.say("  the store has no legal holds: whoever may write to it could delete what the snapshot needs")

    context.result(jsonout.plain(result), show)
    return 0


def hold_clear(
    ctx: typer.Context,
    snapshot: Annotated[str, argument("ID", SNAPSHOT_HELP)],
    reason: Annotated[str, option("TEXT", "Why; it is kept with the record.")] = "",
) -> int:
    """Let a snapshot be deleted again."""
    from backstay.operations.retention.holds import clear_hold

    context = context_of(ctx)
    with context.open() as repository, context.watching() as events:
        # By its whole id also one that is lost or damaged, which no other word would find.
        known = snapshot in repository.snapshots.holds.held()
        ident = snapshot if known else choosing.one(context, repository, snapshot).id
        result = clear_hold(repository, ident, reason, events=events)

    def show() -> None:
        context.say(f"snapshot {result.snapshot} {'is held no more' if result.changed else 'was not held'}")
        if result.objects:
            context.say(f"  the store let go of {plural(result.objects, 'object')}")

    context.result(jsonout.plain(result), show)
    return 0


def hold_list(ctx: typer.Context) -> int:
    """Show which snapshots are held, since when and why."""
    context = context_of(ctx)
    with context.open(index=False) as repository:
        held = sorted(repository.snapshots.holds.held().items())
    document = [
        {
            "snapshot": snapshot,
            "since": datetime_from_ns(record.set_ns) if record else None,
            "reason": record.reason if record else "its record cannot be read",
        }
        for snapshot, record in held
    ]

    def show() -> None:
        rows = [
            (
                str(row["snapshot"]),
                local_time(row["since"]) if isinstance(row["since"], datetime) else "?",
                row["reason"],
            )
            for row in document
        ]
        if rows:
            print_table(("ID", "Since", "Because"), [tuple(map(str, row)) for row in rows], context.environ)
        else:
            context.say("no snapshot is held")

    context.result(document, show)
    return 0
