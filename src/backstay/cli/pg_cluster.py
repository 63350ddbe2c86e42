"""`pg backup`, `restore`, `verify` and `expire`: whole PostgreSQL clusters, and recovery to any point in time."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backstay.cli import default_repository
from backstay.cli.context import Context, context_of
from backstay.cli.moments import seconds, zoned_moment
from backstay.cli.options import argument, flag, option
from backstay.core.quantities import format_duration, format_size, plural
from backstay.errors import CorruptedBackup, InvalidRequest

if TYPE_CHECKING:
    from backstay.operations.pg_plan import RecoveryPlan, RecoveryTarget

NAME = "NAME"
_NAMED = "What the cluster is called in the repository."


def pg_backup(
    ctx: typer.Context,
    url: Annotated[str, argument("URL", "The server: postgresql://user@host:port/postgres; the role may replicate.")],
    name: Annotated[str, option(NAME, _NAMED)],
    full: Annotated[bool, flag("Have all files sent, not only what changed.", "--full")] = False,
    tag: Annotated[list[str] | None, option("TAG", "Tag the snapshot; repeatable.")] = None,
    description: Annotated[str, option("TEXT", "A remark on the snapshot.")] = "",
    host: Annotated[str | None, option("HOST", "Another host name than this machine's.")] = None,
) -> int:
    """Make a base backup of a running cluster, with the WAL that it needs."""
    from backstay.operations.pg_backup import ClusterBackupOptions, back_up_cluster

    context = context_of(ctx)
    options = ClusterBackupOptions(
        name=name,
        host=host or socket.gethostname(),
        full=full,
        tags=tuple(dict.fromkeys(tag or ())),
        description=description,
    )
    default_repository.ensure_default(context, context.location())
    with context.open(grows=True) as repository, context.watching() as events:
        result = back_up_cluster(repository, url, options, events=events)

    def show() -> None:
        sent = "all files were sent" if result.parent is None else "what changed was sent"
        why = f" ({result.reason})" if result.reason else ""
        context.say(f"{plural(result.files, 'file')} with {format_size(result.bytes)}; {sent}{why}")
        context.say(
            f"{format_size(result.bytes_received)} received, {format_size(result.bytes_added)} added to the repository "
            f"in {format_duration(result.duration_s)}"
        )
        context.say(f"from {result.start_lsn} to {result.stop_lsn} on timeline {result.timeline}")
        context.say(f"snapshot {result.snapshot} ({result.kind})")

    context.result(dataclasses.asdict(result), show)
    return 0


def pg_restore(
    ctx: typer.Context,
    name: Annotated[str, option(NAME, _NAMED)],
    to: Annotated[Path, option("DIR", "The data directory to write: empty, or not there yet.")],
    snapshot: Annotated[str, argument("ID", "The base backup; the best one for the target if not given.")] = "latest",
    at: Annotated[str | None, option("TIME", "Recover to this time; it must have a zone.")] = None,
    lsn: Annotated[str | None, option("LSN", "Recover to this position, such as 16/B374D848.")] = None,
    xid: Annotated[int | None, option("XID", "Recover to this transaction.", min=3)] = None,
    restore_point: Annotated[
        str | None, option("POINT", "Recover to what pg_create_restore_point gave this name.")
    ] = None,
    immediate: Annotated[bool, flag("Recover only until the base backup is consistent.", "--immediate")] = False,
    timeline: Annotated[int | None, option("N", "Along this timeline; the newest if not given.", min=1)] = None,
    tablespaces: Annotated[
        Path | None, option("DIR", "Where tablespaces go, each by its oid; DIR.tablespaces if not given.")
    ] = None,
    port: Annotated[
        int | None, option("N", "Where the server will listen, if not as before.", min=1, max=65535)
    ] = None,
    parallel: Annotated[int | None, option("N", "Files written at once.", min=1, max=64)] = None,
    start: Annotated[bool, flag("Start a server there and wait until it has recovered.", "--start")] = False,
    programs: Annotated[Path | None, option("DIR", "Where pg_ctl and postgres of its version are.")] = None,
    patience: Annotated[str, option("SPAN", "How long its recovery may take.", show_default=True)] = "1h",
    dry_run: Annotated[bool, flag("Only tell what would be done.", "--dry-run", "-n")] = False,
) -> int:
    """Write a data directory that recovers to a target when its server is started."""
    from backstay.operations.pg_plan import plan_recovery
    from backstay.operations.pg_rehearse import programs_of, start_recovered
    from backstay.operations.pg_restore import require_empty, restore_cluster

    context = context_of(ctx)
    target = _target(context, at, lsn, xid, restore_point, timeline, immediate=immediate)
    patience_s = seconds(patience)
    require_empty(to)
    with context.open() as repository:
        plan = plan_recovery(repository, name, snapshot, target)
        if dry_run:
            context.result(_plan_document(plan), lambda: _show_plan(context, plan))
            return 0
        found = programs_of(plan, programs, context.environ) if start else None  # before anything is written
        with context.watching() as events:
            result = restore_cluster(
                repository,
                plan,
                to.absolute(),
                tablespaces=tablespaces,
                port=port,
                parallel=parallel,
                events=events,
            )
            if found is not None:
                start_recovered(to.absolute(), found, patience_s=patience_s, clock=context.clock)

    def show() -> None:
        _show_plan(context, plan)
        context.say(f"restored {plural(result.files, 'file')} with {format_size(result.bytes)} to {to}")
        for place in result.tablespaces:
            context.say(f"a tablespace lies in {place}")
        if start:
            context.say(f"its server has recovered to {plan.target}, and runs")
        else:
            context.say(f"start it with `pg_ctl -D {to} start`: it recovers to {plan.target}, and is promoted then")

    for problem in result.problems[:20]:
        context.warn(problem)
    context.result({**_plan_document(plan), **dataclasses.asdict(result), "dry_run": False, "started": start}, show)
    return 0


def _target(
    context: Context,
    at: str | None,
    lsn: str | None,
    xid: int | None,
    point: str | None,
    timeline: int | None,
    *,
    immediate: bool,
) -> RecoveryTarget:
    """The one target that was given. Raises InvalidRequest for several, and for a time without a zone."""
    from backstay.operations.pg_plan import RecoveryTarget
    from backstay.sources.postgres.lsn import parse_lsn

    given = [value for value in (at, lsn, xid, point, immediate or None) if value is not None]
    if len(given) > 1:
        raise InvalidRequest(
            "a recovery has one target",
            cause="more than one of --at, --lsn, --xid, --restore-point and --immediate is given",
            hint="give the one that is meant",
        )
    if at is not None:
        return RecoveryTarget(kind="time", time=zoned_moment(context, at), timeline=timeline)
    if lsn is not None:
        return RecoveryTarget(kind="lsn", lsn=parse_lsn(lsn), timeline=timeline)
    if xid is not None:
        return RecoveryTarget(kind="xid", xid=xid, timeline=timeline)
    if point is not None:
        return RecoveryTarget(kind="name", name=point, timeline=timeline)
    return RecoveryTarget(kind="immediate" if immediate else "latest", timeline=timeline)


def _plan_document(plan: RecoveryPlan) -> dict[str, object]:
    from backstay.sources.postgres.lsn import format_lsn

    return {
        "dry_run": True,
        "snapshot": plan.base.snapshot,
        "target": str(plan.target),
        "timeline": plan.path.timeline,
        "segments": [file.name for file in plan.segments],
        "wal_bytes": plan.wal_bytes,
        "end_lsn": format_lsn(plan.end_lsn),
        "last_commit": plan.last_commit.isoformat() if plan.last_commit is not None else None,
    }


def _show_plan(context: Context, plan: RecoveryPlan) -> None:
    from backstay.sources.postgres.lsn import format_lsn

    base = plan.base
    context.say(f"base backup {base.snapshot} of {base.stop_time.isoformat(sep=' ')}, {format_lsn(base.stop_lsn)}")
    span = f", {plan.segments[0].name} to {plan.segments[-1].name}" if plan.segments else ""
    wal = f"{plural(len(plan.segments), 'WAL segment')} ({format_size(plan.wal_bytes)})"
    context.say(f"{wal}{span}, timeline {plan.path.timeline}")
    last = plan.last_commit.isoformat(sep=" ") if plan.last_commit is not None else "none since the base backup"
    context.say(f"recovers to {plan.target}; last commit: {last}")


def pg_expire(
    ctx: typer.Context,
    name: Annotated[str, option(NAME, _NAMED)],
    window: Annotated[
        str | None, option("SPAN", "Keep all WAL with which so much time can be recovered, such as 14d; else all.")
    ] = None,
    dry_run: Annotated[bool, flag("Only tell what would be removed.", "--dry-run", "-n")] = False,
) -> int:
    """Remove WAL that no base backup and no recovery within the window needs."""
    from backstay.core.times import Span
    from backstay.operations.pg_expire import expire_wal, plan_expiry

    context = context_of(ctx)
    now = context.clock.now()
    length = now - Span.parse(window).subtract_from(now) if window is not None else None
    with context.open(index=False) as repository:
        plan = plan_expiry(repository, name, window=length)
        if not dry_run:
            with context.watching() as events:
                expire_wal(repository, plan, events=events)

    def show() -> None:
        would = "would be removed" if dry_run else "removed"
        context.say(f"{plural(len(plan.expired), 'WAL segment')} {would}, {plan.kept} kept")
        context.say(f"everything from {plan.from_lsn} on stays, that of base backup {plan.since}")

    context.result({**dataclasses.asdict(plan), "dry_run": dry_run}, show)
    return 0


def pg_verify(
    ctx: typer.Context,
    name: Annotated[str, option(NAME, _NAMED)],
    rehearse: Annotated[Path, option("DIR", "Where to restore to and to start a server: empty, and gone afterwards.")],
    snapshot: Annotated[str, argument("ID", "The base backup; the best one for the target if not given.")] = "latest",
    at: Annotated[str | None, option("TIME", "Recover to this time instead of the end; it must have a zone.")] = None,
    sql: Annotated[list[str] | None, option("QUERY", "A query that must give `true`; repeatable.")] = None,
    database: Annotated[str, option("DB", "Where the queries run.", show_default=True)] = "postgres",
    superuser: Annotated[str, option("ROLE", "A superuser of the cluster.", show_default=True)] = "postgres",
    programs: Annotated[Path | None, option("DIR", "Where pg_ctl and postgres of its version are.")] = None,
    patience: Annotated[str, option("SPAN", "How long the recovery may take.", show_default=True)] = "1h",
) -> int:
    """Recover a cluster in a scratch place, check its indexes and ask it questions; print the evidence."""
    from backstay.operations.pg_plan import plan_recovery
    from backstay.operations.pg_rehearse import RehearsalOptions, rehearse_cluster

    context = context_of(ctx)
    options = RehearsalOptions(
        scratch=rehearse,
        programs=programs,
        superuser=superuser,
        database=database,
        assertions=tuple(sql or ()),
        patience_s=seconds(patience),
    )
    target = _target(context, at, None, None, None, None, immediate=False)
    with context.open() as repository:
        plan = plan_recovery(repository, name, snapshot, target)
        with context.watching() as events:
            result = rehearse_cluster(repository, plan, options, environ=context.environ, events=events)

    def show() -> None:
        _show_plan(context, plan)
        context.say(
            f"restored in {format_duration(result.restore_s)}, recovered to {result.recovered_lsn} "
            f"in {format_duration(result.recovery_s)}"
        )
        if result.amcheck != "not there":
            context.say(f"{_mark(result.amcheck == 'ok')} indexes: {result.amcheck}")
        for assertion in result.assertions:
            context.say(f"{_mark(assertion.ok)} {assertion.sql}: {assertion.value}")

    if result.amcheck == "not there":
        context.warn(f"no index was checked: amcheck is not installed there ({result.amcheck_output})")
    elif result.amcheck == "failed":
        context.warn(f"pg_amcheck: {result.amcheck_output}")
    context.result({**dataclasses.asdict(result), "ok": result.ok}, show)
    return 0 if result.ok else CorruptedBackup.exit_status


def _mark(ok: bool) -> str:
    return "ok    " if ok else "FAILED"
