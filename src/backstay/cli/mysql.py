"""`mysql`: the binary log of MySQL and MariaDB servers, and recovery to a time or position with it."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from backstay.cli.context import Context, context_of
from backstay.cli.moments import parse_every, zoned_moment
from backstay.cli.options import argument, flag, option
from backstay.cli.recovery_windows import ShownWindow, print_windows
from backstay.cli.render import zoned_time
from backstay.cli.wal_expiry import window_length
from backstay.core.quantities import format_count, format_size, plural
from backstay.errors import InvalidRequest

if TYPE_CHECKING:
    from backstay.operations.mysql.plan import BinlogTarget, ReplayPlan
    from backstay.operations.mysql.windows import BinlogWindow

URL_HELP = "mysql://user@host:port/; passwords come from ~/.my.cnf or MYSQL_PWD."
NAME_HELP = "The name of the server, which its dumps and its binary log have."


def mysql_receive(
    ctx: typer.Context,
    url: Annotated[str, argument("URL", f"The server: {URL_HELP}")],
    name: Annotated[str, option("NAME", NAME_HELP)],
    every: Annotated[str, option("DUR", "Store what has come of a file so often.", show_default=True)] = "5s",
) -> int:
    """Receive the binary log until it is stopped: what the server logs is durable here seconds later."""
    from backstay.operations.backup.request import check_name
    from backstay.operations.mysql.receive import BinlogReceiveOptions, run_binlog_receive

    context = context_of(ctx)
    check_name(name)
    options = BinlogReceiveOptions(url=url, name=name, every=parse_every(every))
    with context.open(index=False, cached=True, grows=True) as repository, context.until_stopped() as (events, stopped):
        result = run_binlog_receive(repository, options, stopped, environ=context.environ, events=events)
    durable = None if result.durable is None else str(result.durable)
    reached = f"the binary log of {name} is stored up to {durable}" if durable else "nothing new came"
    context.result(
        {"name": name, "bytes": result.bytes, "durable": durable},
        lambda: context.say(f"stopped: {reached} ({format_size(result.bytes)} stored)"),
    )
    return 0


def mysql_windows(
    ctx: typer.Context,
    name: Annotated[str | None, option("NAME", f"{NAME_HELP} All if not given.")] = None,
) -> int:
    """Tell from when to when a server can be recovered, and what is missing in between."""
    from backstay.operations.mysql.windows import binlog_windows

    context = context_of(ctx)
    with context.open(index=False) as repository:
        found = binlog_windows(repository, name)
    context.result([_window_document(window) for window in found], lambda: _show_windows(context, found))
    return 0


def mysql_restore(
    ctx: typer.Context,
    name: Annotated[str, option("NAME", NAME_HELP)],
    to: Annotated[str, option("URL", f"A server that is new or empty, and not the one of the backup. {URL_HELP}")],
    snapshot: Annotated[str, argument("ID", "The dump; the best one for the target if not given.")] = "latest",
    at: Annotated[str | None, option("TIME", "Recover to before the second of this time; it must have a zone.")] = None,
    position: Annotated[str | None, option("FILE:POS", "Recover to this position, such as binlog.000042:1234.")] = None,
    gtid: Annotated[str | None, option("GTID", "Recover up to this transaction, such as 0-1-4711, with it.")] = None,
    dry_run: Annotated[bool, flag("Only tell what would be done.", "--dry-run", "-n")] = False,
) -> int:
    """Restore a dump into an empty server, and replay the binary log behind it up to a target."""
    from backstay.operations.mysql.plan import plan_replay
    from backstay.operations.mysql.recover import look_at_target, recover
    from backstay.repository.readers import announced

    context = context_of(ctx)
    target = _target(context, at, position, gtid)
    warnings: tuple[str, ...] = ()
    with context.open() as repository, nullcontext() if dry_run else announced(repository, warn=context.warn):
        plan = plan_replay(repository, name, snapshot, target)
        with context.watching() as events:
            if dry_run:
                warnings = look_at_target(repository, plan, to, environ=context.environ, events=events).warnings
            else:
                recover(repository, plan, to, environ=context.environ, events=events)
    for warning in warnings:
        context.warn(warning)

    def show() -> None:
        _show_plan(context, plan)
        context.say("nothing was written" if dry_run else f"recovered to {plan.target}")

    context.result({**_plan_document(plan), "dry_run": dry_run}, show)
    return 0


def mysql_expire(
    ctx: typer.Context,
    name: Annotated[str, option("NAME", NAME_HELP)],
    window: Annotated[
        str | None, option("SPAN", "Keep all with which so much time can be recovered, such as 14d; else all.")
    ] = None,
    dry_run: Annotated[bool, flag("Only tell what would be removed.", "--dry-run", "-n")] = False,
) -> int:
    """Remove files of the binary log that no dump and no recovery within the window needs."""
    from backstay.operations.mysql.expire import expire_binlog, plan_binlog_expiry

    context = context_of(ctx)
    length = window_length(context, window)
    result = None
    with context.open(index=False) as repository:
        plan = plan_binlog_expiry(repository, name, window=length)
        if not dry_run:
            with context.watching() as events:
                result = expire_binlog(repository, plan, events=events)
    removed = 0 if result is None else result.removed
    waiting_for = () if result is None else result.waiting_for
    if waiting_for:
        context.warn(
            f"the log was left for a recovery that runs ({', '.join(waiting_for)}): do the same again when it has ended"
        )

    def show() -> None:
        count, would = (len(plan.expired), "would be removed") if dry_run else (removed, "removed")
        context.say(f"{plural(count, 'file')} of the binary log {would}, {plan.kept} kept")
        context.say(f"everything from {plan.first_kept} on stays, where dump {plan.since} lies")

    document = {**dataclasses.asdict(plan), "system": str(plan.system), "removed": removed, "waiting_for": waiting_for}
    context.result({**document, "dry_run": dry_run}, show)
    return 0


def _target(context: Context, at: str | None, position: str | None, gtid: str | None) -> BinlogTarget:
    """The one target that was given. Raises InvalidRequest for several, and for a time without a zone."""
    from backstay.operations.mysql.plan import BinlogTarget
    from backstay.sources.mysql.binlog import parse_gtid, parse_position

    if len([value for value in (at, position, gtid) if value is not None]) > 1:
        raise InvalidRequest(
            "a recovery has one target",
            cause="more than one of --at, --position and --gtid is given",
            hint="give the one that is meant",
        )
    if at is not None:
        return BinlogTarget(kind="time", time=zoned_moment(context, at))
    if position is not None:
        return BinlogTarget(kind="position", position=parse_position(position))
    if gtid is not None:
        return BinlogTarget(kind="gtid", gtid=parse_gtid(gtid))
    return BinlogTarget()


def _window_document(window: BinlogWindow) -> dict[str, object]:
    return {
        "name": window.name,
        "snapshots": list(window.snapshots),
        "start_time": window.start_time,
        "end_time": window.end_time,
        "start": str(window.start),
        "end": None if window.end is None else str(window.end),
        "gap": None if window.gap is None else dataclasses.asdict(window.gap),
    }


def _show_windows(context: Context, found: list[BinlogWindow]) -> None:
    if not found:
        context.say(
            "there is no dump of all databases with a binary log: `backstay backup --source mysql://user@host/ "
            "--name NAME` makes one, and `backstay mysql receive` of the same name stores its log"
        )
        return
    shown = [
        ShownWindow(
            about=(window.name, format_count(len(window.snapshots))),
            begin=(_first_time(window), str(window.start)),
            end=(
                "" if window.end_time is None else zoned_time(window.end_time),
                "" if window.end is None else str(window.end),
            ),
        )
        for window in found
    ]
    print_windows(("NAME", ">DUMPS"), ">POSITION", shown, context.environ)
    for gap in (window.gap for window in found if window.gap is not None):
        missing = gap.first if gap.first == gap.last else f"{gap.first} to {gap.last}"
        sys.stdout.write(f"gap: {missing} missing or not complete\n")


def _first_time(window: BinlogWindow) -> str:
    if window.start_time is not None:
        return zoned_time(window.start_time)
    return "the log is missing" if window.end is None else "no later second yet"


def _plan_document(plan: ReplayPlan) -> dict[str, object]:
    return {
        "snapshot": plan.dump.snapshot,
        "target": str(plan.target),
        "start": str(plan.dump.position),
        "end": str(plan.end),
        "files": [part.log.file for part in plan.parts],
        "bytes": plan.bytes,
        "transactions": plan.transactions,
        "last_time": plan.last_time,
        "accounts": plan.accounts,
        "left_out": plan.left_out,
    }


def _show_plan(context: Context, plan: ReplayPlan) -> None:
    dump = plan.dump
    context.say(f"dump {dump.snapshot} of {dump.time.isoformat(sep=' ', timespec='seconds')}, {dump.position}")
    log = f"{plural(plan.transactions, 'transaction')} ({format_size(plan.bytes)})"
    context.say(f"{log} of the binary log, up to {plan.end}")
    last = "none behind the dump" if plan.last_time is None else plan.last_time.isoformat(sep=" ")
    context.say(f"recovers to {plan.target}; last transaction: {last}")
