"""`retain`: keep locked what snapshots need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from backstay.cli.context import Context, context_of
from backstay.cli.options import flag, option
from backstay.core.quantities import plural

if TYPE_CHECKING:
    from backstay.operations.extend_locks import ExtensionPlan, ExtensionResult

BELOW = 50


def retain(
    ctx: typer.Context,
    below: Annotated[
        int, option("PERCENT", "Extend locks with less of their days left.", min=1, max=100, show_default=True)
    ] = BELOW,
    dry_run: Annotated[bool, flag("Only tell what would be extended.", "--dry-run", "-n")] = False,
) -> int:
    """Extend the store's locks of all that snapshots need; each backup does it for its own."""
    from backstay.operations.extend_locks import plan_extension, run_extension

    context = context_of(ctx)
    with context.open() as repository, context.watching() as events:
        plan = plan_extension(repository, repository.snapshots.live(), share=below / 100, events=events)
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
