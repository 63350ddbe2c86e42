"""`pg setup`: what a PostgreSQL server lacks, and the commands that mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from backstay.cli import jsonout
from backstay.cli.context import Context, context_of
from backstay.cli.options import argument, flag, option
from backstay.cli.pg import NAME_HELP, URL_HELP
from backstay.cli.render import out
from backstay.core.quantities import plural
from backstay.core.times import parse_length

if TYPE_CHECKING:
    from backstay.operations.clusters.setup import Applied, SetupPlan


def pg_setup(
    ctx: typer.Context,
    url: Annotated[str, argument("URL", URL_HELP)],
    name: Annotated[str, option("NAME", NAME_HELP)],
    role: Annotated[str | None, option("ROLE", "The role that will receive; that of URL if not given.")] = None,
    wal: Annotated[
        Literal["stream", "archive"],
        option("WAY", "How WAL comes: stream (pg receive) or archive (archive_command).", show_default=True),
    ] = "stream",
    rpo: Annotated[str, option("DUR", "How much may be lost, where the server archives.", show_default=True)] = "15min",
    apply: Annotated[bool, flag("Run the SQL that is printed, as the role of URL.", "--apply")] = False,
) -> int:
    """See whether a server is ready, and print what to do; exit status 1 if something must be done."""
    from backstay.operations.backup.request import check_name
    from backstay.operations.clusters.setup import SetupOptions, apply_setup, plan_setup

    context = context_of(ctx)
    check_name(name)
    options = SetupOptions(url=url, name=name, role=role, way=wal, rpo=parse_length(rpo).total_seconds())
    plan = plan_setup(options)
    applied = apply_setup(options, plan) if apply else []
    if applied:
        plan = plan_setup(options)
    document = {
        **jsonout.plain(plan),
        "ready": not plan.count("must"),
        "applied": [jsonout.plain(command) for command in applied],
    }
    context.result(document, lambda: _show_setup(context, plan, applied))
    return 1 if plan.count("must") else 0


def _show_setup(context: Context, plan: SetupPlan, applied: list[Applied]) -> None:
    for command in applied:
        after = "  -- counts after a restart" if command.restart else ""
        out(f"{'refused' if command.error else 'ran':<7} {command.sql};{after}")
        if command.error:
            out(f"        {command.error}")
    for finding in plan.findings:
        out(f"{finding.state:<7} {finding.text}")
        after = "  -- counts after a restart" if finding.restart else ""
        for sql in finding.sql:
            out(f"        {sql};{after}")
        if finding.by_hand:
            out(f"        {finding.by_hand}")
    must, should = plan.count("must"), plan.count("should")
    if not must:
        advised = f"; {plural(should, 'thing')} should be done" if should else ""
        context.say(f"{plan.place} is ready for {plan.name}{advised}")
        return
    context.say(f"{plural(must, 'thing')} must be done before {plan.place} is ready for {plan.name}")
    if not applied and any(finding.sql for finding in plan.findings):
        context.say("the same command with --apply runs the SQL")
