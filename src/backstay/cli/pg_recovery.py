"""`pg restore`, `fetch` and `verify`: recovery of PostgreSQL clusters to any point in time, for use or for proof."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from backstay.cli.context import Context, context_of
from backstay.cli.options import argument, flag, option
from backstay.cli.pg_cluster import NAME, NAMED
from backstay.cli.pg_target import At, Immediate, Lsn, RestorePoint, Snapshot, Timeline, Xid, target_of
from backstay.core.quantities import format_duration, format_size, plural
from backstay.core.times import parse_length
from backstay.errors import CorruptedBackup, Interrupted, InvalidRequest

if TYPE_CHECKING:
    from backstay.operations.clusters.plan import RecoveryPlan
    from backstay.operations.clusters.restore import ClusterRestoreOptions, ClusterRestoreResult, DeltaOptions
    from backstay.repository.repository import Repository


ConfigFrom: TypeAlias = Annotated[
    Path | None,
    option("DIR", "Where postgresql.conf and its kin lay, if not in the data directory: they are copied."),
]


def pg_restore(
    ctx: typer.Context,
    name: Annotated[str, option(NAME, NAMED)],
    to: Annotated[
        Path, option("DIR", "The data directory to write: empty or not there, or an older one with --delta.")
    ],
    snapshot: Snapshot = "latest",
    at: At = None,
    lsn: Lsn = None,
    xid: Xid = None,
    restore_point: RestorePoint = None,
    immediate: Immediate = False,
    timeline: Timeline = None,
    delta: Annotated[
        bool, flag("Take an older data directory of this cluster, and write only what differs.", "--delta")
    ] = False,
    other_cluster: Annotated[
        bool, flag("With --delta: also one of another cluster, which is lost.", "--other-cluster")
    ] = False,
    tablespaces: Annotated[
        Path | None, option("DIR", "Where tablespaces go, each by its oid; DIR.tablespaces if not given.")
    ] = None,
    tablespaces_in_place: Annotated[
        bool,
        flag(
            "With --delta: where the links of the directory lead; no other server may use that.",
            "--tablespaces-in-place",
        ),
    ] = False,
    port: Annotated[
        int | None, option("N", "Where the server will listen, if not as before.", min=1, max=65535)
    ] = None,
    parallel: Annotated[int | None, option("N", "Files written at once.", min=1, max=64)] = None,
    wal: Annotated[
        Literal["staged", "stream"],
        option("HOW", "staged: all WAL lies there before; stream: it comes as it is needed.", show_default=True),
    ] = "staged",
    config_from: ConfigFrom = None,
    start: Annotated[bool, flag("Start a server there and wait until it has recovered.", "--start")] = False,
    programs: Annotated[Path | None, option("DIR", "Where pg_ctl and postgres of its version are.")] = None,
    patience: Annotated[str, option("SPAN", "How long its recovery may take.", show_default=True)] = "1h",
    dry_run: Annotated[bool, flag("Only tell what would be done.", "--dry-run", "-n")] = False,
) -> int:
    """Write a data directory that recovers to a target when its server is started."""
    from backstay.operations.clusters.configuration import Configuration
    from backstay.operations.clusters.directory import require_empty
    from backstay.operations.clusters.plan import plan_recovery
    from backstay.operations.clusters.rehearse import programs_of, start_recovered
    from backstay.operations.clusters.restore import ClusterRestoreOptions, require_target, restore_cluster
    from backstay.operations.clusters.serving import serving
    from backstay.repository.readers import announced

    context = context_of(ctx)
    options = ClusterRestoreOptions(
        tablespaces=tablespaces,
        port=port,
        parallel=parallel,
        wal=wal,
        configuration=None if config_from is None else Configuration.read(config_from),
        delta=_delta(delta=delta, other_cluster=other_cluster, tablespaces_in_place=tablespaces_in_place),
    )
    target = target_of(context, at=at, lsn=lsn, xid=xid, point=restore_point, immediate=immediate, timeline=timeline)
    patience_s = parse_length(patience).total_seconds()
    if not delta:
        require_empty(to)  # before WAL is read for minutes
    with context.open() as repository, nullcontext() if dry_run else announced(repository, warn=context.warn):
        plan = plan_recovery(repository, name, snapshot, target)
        require_target(repository, plan, to.absolute(), options)
        _warn_of_plan(context, plan)
        if dry_run:
            context.result(_plan_document(plan), lambda: _show_plan(context, plan))
            return 0
        found = programs_of(plan, programs, context.environ) if start else None  # before anything is written
        with context.watching(tidies=start) as events:
            result = restore_cluster(repository, plan, to.absolute(), options, events=events)
            if found is not None:
                with (
                    _told_how_to_go_on(to, streamed=wal == "stream"),
                    serving(repository, to.absolute()) if wal == "stream" else nullcontext(),
                ):
                    start_recovered(to.absolute(), found, patience_s=patience_s, clock=context.clock, events=events)
        for problem in result.problems[:20]:
            context.warn(problem)
        document = {**_plan_document(plan), **dataclasses.asdict(result), "dry_run": False, "started": start}
        context.result(document, lambda: _show_restored(context, plan, result, to, options, started=start))
        if wal == "stream" and not start:
            _serve(context, repository, to)
    return 0


@contextmanager
def _told_how_to_go_on(data: Path, *, streamed: bool) -> Iterator[None]:
    """Whoever interrupts a recovery is told that its restore need not be made again."""
    try:
        yield
    except Interrupted as error:
        first = f"`backstay pg fetch {data}` and " if streamed else ""
        raise Interrupted(
            f"the server in {data} had not recovered yet, and is stopped",
            cause=error.cause,
            hint=f"all is restored: {first}`pg_ctl -D {data} start` go{'' if streamed else 'es'} on with the recovery",
        ) from error


def pg_fetch(
    ctx: typer.Context,
    data: Annotated[Path, argument("DIR", "The data directory that `pg restore --wal stream` wrote.")],
) -> int:
    """Bring WAL to a server that recovers, until it has recovered."""
    from backstay.repository.readers import announced

    context = context_of(ctx)
    with context.open(index=False) as repository, announced(repository, warn=context.warn):
        _serve(context, repository, data)
    context.result({"data": str(data), "recovered": True}, lambda: None)
    return 0


def _serve(context: Context, repository: Repository, data: Path) -> None:
    """Raises Interrupted when it was stopped before the server had recovered."""
    from backstay.operations.clusters.serving import WalService

    with context.until_stopped() as (events, stopped):
        service = WalService.open(repository, data.absolute(), events=events)
        if not context.json:
            context.say(
                f"WAL is brought to {data} until its server has recovered; Ctrl-C stops that, and then the server"
            )
        sys.stdout.flush()  # whoever waits for this line starts the server
        done = service.run(stopped)
    if not done:
        raise Interrupted(
            f"the server in {data} had not recovered yet",
            cause="a signal asked to stop; the server stops when it needs more WAL",
            hint=f"`backstay pg fetch {data}` goes on, then start the server again",
        )
    if not context.json:
        context.say(f"the server in {data} has recovered")


def _show_restored(
    context: Context,
    plan: RecoveryPlan,
    result: ClusterRestoreResult,
    to: Path,
    options: ClusterRestoreOptions,
    *,
    started: bool,
) -> None:
    _show_plan(context, plan)
    context.say(f"restored {plural(result.files, 'file')} with {format_size(result.bytes)} to {to}")
    if options.delta is not None:
        context.say(
            f"{format_size(result.bytes_kept)} of it were there already; "
            f"{plural(result.removed, 'item')} that did not belong there removed"
        )
    for place in result.tablespaces:
        context.say(f"a tablespace lies in {place}")
    if started:
        context.say(f"its server has recovered to {plan.target}, and runs")
    else:
        context.say(f"start it with `pg_ctl -D {to} start`: it recovers to {plan.target}, and is promoted then")


def _delta(*, delta: bool, other_cluster: bool, tablespaces_in_place: bool) -> DeltaOptions | None:
    """What --delta allows. Raises InvalidRequest for what means nothing without it."""
    from backstay.operations.clusters.restore import DeltaOptions

    if delta:
        return DeltaOptions(other_cluster=other_cluster, tablespaces_in_place=tablespaces_in_place)
    if other_cluster or tablespaces_in_place:
        raise InvalidRequest(
            "there is no older data directory to restore onto",
            cause="--other-cluster and --tablespaces-in-place say what --delta may do, which is not given",
            hint="add --delta, or leave them out",
        )
    return None


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
        "other_timelines": [
            {"timeline": other.timeline, "last_commit": other.last_commit.isoformat()} for other in plan.others
        ],
        "same_restore_points": [
            {"lsn": format_lsn(point.lsn), "time": point.time.isoformat()} for point in plan.same_name
        ],
        "made_tablespaces": [{"oid": made.oid, "place": made.place, "lsn": format_lsn(made.lsn)} for made in plan.made],
    }


def _warn_of_plan(context: Context, plan: RecoveryPlan) -> None:
    from backstay.sources.postgres.lsn import format_lsn

    if plan.base.damage:
        context.warn(f"base backup {plan.base.snapshot} is damaged: {plan.base.damage}")
    for other in plan.others:
        context.warn(f"{other}: --timeline {other.timeline} follows it, without that the newest timeline is taken")
    for made in plan.made:
        context.warn(str(made))
    for point in plan.same_name:
        lsn = format_lsn(point.lsn)
        context.warn(
            f"{plan.target} was made again at {point.time.isoformat(sep=' ')}: the first one behind the base backup is "
            f"taken, and --lsn {lsn} recovers to that one"
        )


def _show_plan(context: Context, plan: RecoveryPlan) -> None:
    from backstay.sources.postgres.lsn import format_lsn

    base = plan.base
    context.say(f"base backup {base.snapshot} of {base.stop_time.isoformat(sep=' ')}, {format_lsn(base.stop_lsn)}")
    span = f", {plan.segments[0].name} to {plan.segments[-1].name}" if plan.segments else ""
    wal = f"{plural(len(plan.segments), 'WAL segment')} ({format_size(plan.wal_bytes)})"
    context.say(f"{wal}{span}, timeline {plan.path.timeline}")
    last = plan.last_commit.isoformat(sep=" ") if plan.last_commit is not None else "none since the base backup"
    context.say(f"recovers to {plan.target}; last commit: {last}")


def pg_verify(
    ctx: typer.Context,
    name: Annotated[str, option(NAME, NAMED)],
    rehearse: Annotated[Path, option("DIR", "Where to restore to and to start a server: empty, and gone afterwards.")],
    snapshot: Snapshot = "latest",
    at: At = None,
    lsn: Lsn = None,
    xid: Xid = None,
    restore_point: RestorePoint = None,
    immediate: Immediate = False,
    timeline: Timeline = None,
    sql: Annotated[list[str] | None, option("QUERY", "A query that must give `true`; repeatable.")] = None,
    database: Annotated[str, option("DB", "Where the queries run.", show_default=True)] = "postgres",
    superuser: Annotated[str, option("ROLE", "A superuser of the cluster.", show_default=True)] = "postgres",
    config_from: ConfigFrom = None,
    programs: Annotated[Path | None, option("DIR", "Where pg_ctl and postgres of its version are.")] = None,
    patience: Annotated[str, option("SPAN", "How long the recovery may take.", show_default=True)] = "1h",
) -> int:
    """Recover a cluster in a scratch place, check its indexes and ask it questions; print the evidence."""
    from backstay.operations.clusters.configuration import Configuration
    from backstay.operations.clusters.plan import plan_recovery
    from backstay.operations.clusters.rehearse import RehearsalOptions, rehearse_cluster
    from backstay.repository.readers import announced

    context = context_of(ctx)
    options = RehearsalOptions(
        scratch=rehearse,
        programs=programs,
        superuser=superuser,
        database=database,
        assertions=tuple(sql or ()),
        configuration=None if config_from is None else Configuration.read(config_from),
        patience_s=parse_length(patience).total_seconds(),
    )
    target = target_of(context, at=at, lsn=lsn, xid=xid, point=restore_point, immediate=immediate, timeline=timeline)
    with context.open() as repository, announced(repository, warn=context.warn):
        plan = plan_recovery(repository, name, snapshot, target)
        _warn_of_plan(context, plan)
        with context.watching(tidies=True) as events:
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
