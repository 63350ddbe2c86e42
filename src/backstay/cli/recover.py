"""`recover`: carry a recovery plan out, or go on with it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backstay.cli import jsonout
from backstay.cli.context import Context, context_of
from backstay.cli.options import argument, flag, option
from backstay.cli.render import err, print_table
from backstay.core.quantities import format_duration, format_size, plural
from backstay.errors import InsufficientSpace, InvalidRequest, RestoreConflict

if TYPE_CHECKING:
    from backstay.control.manager.manager import BackupManager
    from backstay.control.recovery.loading import LoadedPlan
    from backstay.control.recovery.previewing import PlanPreview
    from backstay.control.recovery.state import RecoveryState

_TOLD = {"before": "done before", "again": "tried again"}


def recover(
    ctx: typer.Context,
    plan: Annotated[Path, argument("PLAN", "The plan: a YAML file, see docs/recovery.md.")],
    dry_run: Annotated[
        bool, flag("Only tell what would be done, what is in the way, and whether there is room.", "--dry-run", "-n")
    ] = False,
    state: Annotated[
        Path | None, option("FILE", "Where to note what is done, to go on from there; PLAN.state if not given.")
    ] = None,
    restart: Annotated[bool, flag("Forget what was done, and begin anew.", "--restart")] = False,
    done: Annotated[list[str] | None, option("STEP", "Take a step for done by hand; repeatable.")] = None,
    yes: Annotated[bool, flag("Answer yes to what steps ask before they begin.", "--yes", "-y")] = False,
    parallel: Annotated[int | None, option("N", "Steps at once, if not as the plan says.", min=1, max=16)] = None,
    report: Annotated[Path | None, option("FILE", "Write the report there too, as JSON.")] = None,
) -> int:
    """Bring back what a plan names, in its order, and check it; run again, it goes on where it ended."""
    from backstay.control.recovery.loading import load_plan
    from backstay.control.recovery.previewing import preview_plan
    from backstay.control.recovery.report_file import require_report_place
    from backstay.control.recovery.running import state_file
    from backstay.control.recovery.state import RecoveryState

    context = context_of(ctx)
    loaded = load_plan(plan, context.environ)
    place = state if state is not None else state_file(plan)
    for name in done or ():
        if name not in loaded.steps:
            raise InvalidRequest(f"the plan has no step {name!r}", cause=f"it has {', '.join(loaded.steps)}")
    if report is not None:
        require_report_place(report, plan, place)
    manager = _manager(context)
    if dry_run:
        known = RecoveryState.peek(place, context.clock, restart=restart)
        preview = preview_plan(loaded, known, manager, environ=context.environ, clock=context.clock)
        context.result(preview.document, lambda: _show_preview(context, preview))
        return _status_of(preview)
    with RecoveryState.open(place, context.clock, restart=restart) as opened:
        for name in done or ():
            opened.note(name, "begun", digest=loaded.digests[name])
            opened.note(name, "done", seconds=0.0, result={"by": "hand"})
        return _run(context, loaded, opened, manager, yes=yes, parallel=parallel, report=report)


def _manager(context: Context) -> BackupManager:
    """A manager of the repository that all commands mean; a recovery needs no catalog, and leaves none."""
    from backstay.control.manager.keeping import Unrecorded
    from backstay.control.manager.manager import BackupManager
    from backstay.control.manager.setup import Setup

    setup = Setup(
        policies=context.policies() if context.policy_file() is not None else None,
        environ=context.environ,
        clock=context.clock,
        warn=context.warn,
        opens=_Opening(context),
    )
    return BackupManager.of_setup(setup, Unrecorded(context.clock))


class _Opening:
    """The repository of the command line, as the manager opens it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.open = context.open

    def prepare(self) -> None:
        """A recovery makes no repository."""


def _run(
    context: Context,
    loaded: LoadedPlan,
    state: RecoveryState,
    manager: BackupManager,
    *,
    yes: bool,
    parallel: int | None,
    report: Path | None,
) -> int:
    from backstay.control.recovery.report import report as report_of
    from backstay.control.recovery.report_file import write_report
    from backstay.control.recovery.running import Company, Recovery

    def ask(question: str) -> bool:
        return yes or _asked(context, question)

    def tell(step: str, what: str, more: str) -> None:
        if not context.quiet and not context.json:
            err(f"{step}: {_TOLD.get(what, what)}{f': {more}' if more else ''}")

    with context.interruptible() as (_, stop_if_asked):
        recovery = Recovery(
            loaded=loaded,
            state=state,
            manager=manager,
            environ=context.environ,
            clock=context.clock,
            company=Company(stop_if_asked=stop_if_asked, ask=ask, tell=tell),
            parallel=parallel,
        )
        recovery.run()
    document = report_of(recovery, context.clock.now())
    if report is not None:
        write_report(report, jsonout.line(document))
    context.result(document, lambda: _show(context, document))
    if recovery.ok:
        return 0
    return next(iter(recovery.errors.values())).exit_status


def _asked(context: Context, question: str) -> bool:
    """The answer of a person; no, where there is none to ask."""
    if context.json or not sys.stdin.isatty():
        return False
    return typer.confirm(question, default=False, err=True)


def _status_of(preview: PlanPreview) -> int:
    if preview.error is not None:
        return preview.error.exit_status
    if any(step["preview"] and step["preview"]["refused"] for step in preview.document["steps"]):
        return RestoreConflict.exit_status
    return InsufficientSpace.exit_status if preview.shortages else 0


def _show_preview(context: Context, preview: PlanPreview) -> None:
    rows = []
    for step in preview.document["steps"]:
        found, error = step["preview"], step["error"]
        size = format_size(found["bytes"]) if found else ""
        if step["done"]:
            remark = "done before"
        elif error:
            remark = f"cannot be looked at: {error['detail']}"
        elif found and found["conflict_count"]:
            remark = plural(found["conflict_count"], "item is in the way", "items are in the way")
        else:
            remark = step["confirm"] or ""
        rows.append((str(step["wave"] + 1), step["name"], step["what"], size, remark))
    if context.talks:
        print_table(("", "Step", "Does", "Size", "Remark"), rows, context.environ)
    for shortage in preview.shortages:
        context.warn(f"too little room: {shortage}")
    context.say(f"{format_size(preview.document['bytes'])} in all; nothing was written")


def _show(context: Context, document: dict[str, Any]) -> None:
    rows = [
        (step["name"], step["outcome"], format_duration(step["duration_s"]), _remark(step))
        for step in document["steps"]
    ]
    if context.talks:
        print_table(("Step", "Outcome", "Took", "Remark"), rows, context.environ)
    if document["ok"]:
        longest = " → ".join(document["critical_path"])
        context.say(f"recovered in {format_duration(document['rto_s'])}; it took as long as {longest}")
    else:
        context.say("not recovered yet: mend the cause and run the same plan again, it goes on from here")


def _remark(step: dict[str, Any]) -> str:
    if step["error"] is not None:
        return f"{step['error']['detail']} ({step['error']['solution']})"
    result = step["result"]
    if "bytes" in result and "backups" in result:
        return f"{format_size(result['bytes'])} of {', '.join(result['backups'])}"
    return str(result.get("value", ""))
