"""`pg`: the WAL of PostgreSQL clusters, and what can be recovered with it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from backstay.cli import jsonout
from backstay.cli.context import Context, context_of
from backstay.cli.moments import parse_every
from backstay.cli.options import argument, flag, option
from backstay.cli.recovery_windows import ShownWindow, print_windows
from backstay.cli.render import local_time, out, print_heading, print_pairs, zoned_time
from backstay.core import environment
from backstay.core.quantities import format_age, format_count, format_duration, format_size, plural
from backstay.core.times import parse_length

if TYPE_CHECKING:
    from backstay.operations.clusters.status import PgStatus
    from backstay.operations.wal.coverage import Gap
    from backstay.operations.wal.windows import Window

URL_HELP = "postgresql://user@host:port/database; passwords come from ~/.pgpass or PGPASSWORD."
NAME_HELP = "The name of the cluster, which its base backups and its WAL have."


def receive(
    ctx: typer.Context,
    url: Annotated[str, argument("URL", URL_HELP)],
    name: Annotated[str, option("NAME", NAME_HELP)],
    every: Annotated[str, option("DUR", "Store what has come of a segment so often.", show_default=True)] = "5s",
    heartbeat: Annotated[
        str,
        option("DUR", "Commit a message when nothing else was for so long; 0 for never.", show_default=True),
    ] = "15min",
    synchronous: Annotated[
        bool, flag("Let commits wait for this receiver: lose nothing that was committed.", "--synchronous")
    ] = False,
    ack: Annotated[
        Literal["repo", "local"],
        option(
            "WHERE",
            "Acknowledge what is durable in the repository (repo), or on this machine before that (local).",
            show_default=True,
        ),
    ] = "repo",
    spool: Annotated[
        Path | None, option("DIR", "Where --ack local keeps WAL; below ~/.local/share/backstay if not given.")
    ] = None,
    no_base_backup: Annotated[
        bool, flag("Make no base backup by itself behind missing WAL or on a new timeline.", "--no-base-backup")
    ] = False,
) -> int:
    """Receive WAL until it is stopped: what the server logs is durable here seconds later."""
    from backstay.operations.backup.request import check_name
    from backstay.operations.clusters.receive import ReceiveOptions, run_receive
    from backstay.sources.postgres.lsn import format_lsn

    context = context_of(ctx)
    check_name(name)
    options = ReceiveOptions(
        url=url,
        name=name,
        host=socket.gethostname(),
        spool=(spool or environment.data_directory(context.environ) / "wal").absolute(),
        every=parse_every(every),
        heartbeat=parse_length(heartbeat).total_seconds(),
        synchronous=synchronous,
        acknowledge=ack,
        base_backup=not no_base_backup,
    )
    with context.open(index=False, cached=True, grows=True) as repository, context.until_stopped() as (events, stopped):
        result = run_receive(repository, options, stopped, events=events)
    durable = format_lsn(result.durable) if result.durable else None
    reached = f"WAL of {name} is stored up to {durable}" if durable else "nothing came"
    context.result(
        {**jsonout.plain(result), "system": str(result.system), "durable": durable},
        lambda: context.say(f"stopped: {reached} ({format_size(result.bytes)} received)"),
    )
    return 0


def windows(
    ctx: typer.Context,
    name: Annotated[str | None, option("NAME", f"{NAME_HELP} All if not given.")] = None,
) -> int:
    """Tell from when to when a cluster can be recovered, and what is missing in between."""
    from backstay.operations.wal.windows import covered

    context = context_of(ctx)
    with context.open(index=False) as repository:
        found = covered(repository, name)
    context.result([_window_document(window) for window in found], lambda: _show_windows(context, found))
    return 0


def status(
    ctx: typer.Context,
    name: Annotated[str, option("NAME", NAME_HELP)],
    url: Annotated[str | None, argument("URL", f"Ask the server too. {URL_HELP}")] = None,
    heartbeat: Annotated[
        str, option("DUR", "What the receiver was given as --heartbeat.", show_default=True)
    ] = "15min",
) -> int:
    """Tell how far stored WAL is behind, and what is wrong; exit status 1 if something is."""
    from backstay.operations.clusters.status import pg_status

    context = context_of(ctx)
    with context.open(index=False) as repository:
        found = pg_status(repository, name, url, heartbeat=parse_length(heartbeat).total_seconds())
    context.result(_status_document(found), lambda: _show_status(context, found))
    return 1 if found.problems else 0


def acknowledge_gap(
    ctx: typer.Context,
    name: Annotated[str, option("NAME", NAME_HELP)],
    reason: Annotated[str, option("TEXT", "Why WAL is missing, or why that can be borne.")] = "",
) -> int:
    """Say that you know of missing WAL: `pg status` is quiet about it then. Nothing is recovered across it."""
    from backstay.operations.clusters.acknowledge import acknowledge_gaps

    context = context_of(ctx)
    who = f"{environment.user()}@{socket.gethostname()}"
    with context.open(index=False, grows=True) as repository:
        found = acknowledge_gaps(repository, name, who=who, reason=reason)

    def show() -> None:
        for gap in found:
            context.say(f"acknowledged: {_gap_line(gap)}")
        if not found:
            context.say("all gaps were acknowledged before: `backstay pg windows` shows them")

    context.result([_gap_document(gap) for gap in found], show)
    return 0


def _window_document(window: Window) -> dict[str, object]:
    from backstay.sources.postgres.lsn import format_lsn

    return {
        "name": window.name,
        "system": str(window.system),  # more digits than numbers of JSON safely have
        "timeline": window.timeline,
        "snapshots": list(window.snapshots),
        "start_time": window.start_time,
        "end_time": window.end_time,
        "start_lsn": format_lsn(window.start_lsn),
        "end_lsn": format_lsn(window.end_lsn),
        "gaps": [_gap_document(gap) for gap in window.gaps],
    }


def _gap_document(gap: Gap) -> dict[str, object]:
    from backstay.core.clock import datetime_from_ns
    from backstay.sources.postgres.lsn import format_lsn

    known = gap.known
    return {
        "from_lsn": format_lsn(gap.from_lsn),
        "to_lsn": format_lsn(gap.to_lsn),
        "segments": gap.segments,
        "acknowledged": None
        if known is None
        else {"time": datetime_from_ns(known.known_ns), "who": known.who, "reason": known.reason},
    }


def _show_windows(context: Context, found: list[Window]) -> None:
    from backstay.sources.postgres.lsn import format_lsn

    if not found:
        context.say("there is no whole base backup: `backstay pg backup` makes one")
        return
    shown = [
        ShownWindow(
            about=(window.name, str(window.timeline), format_count(len(window.snapshots))),
            begin=(zoned_time(window.start_time), format_lsn(window.start_lsn)),
            end=(
                zoned_time(window.end_time) if window.end_time is not None else "WAL is missing",
                format_lsn(window.end_lsn),
            ),
        )
        for window in found
    ]
    print_windows(("NAME", ">TIMELINE", ">BASES"), ">LSN", shown, context.environ)
    _show_gaps(found)


def _show_gaps(found: list[Window]) -> None:
    for window in found:
        for gap in window.gaps:
            out(f"gap on timeline {window.timeline}: {_gap_line(gap)}")


def _gap_line(gap: Gap) -> str:
    from backstay.core.clock import datetime_from_ns
    from backstay.sources.postgres.lsn import format_lsn

    line = f"{plural(gap.segments, 'segment')} missing from {format_lsn(gap.from_lsn)} to {format_lsn(gap.to_lsn)}"
    if gap.known is None:
        return line
    why = f": {gap.known.reason}" if gap.known.reason else ""
    return f"{line}; known to {gap.known.who} since {local_time(datetime_from_ns(gap.known.known_ns))}{why}"


def _status_document(found: PgStatus) -> dict[str, object]:
    from backstay.sources.postgres.lsn import format_lsn

    def lsn(value: int | None) -> str | None:
        return None if value is None else format_lsn(value)

    slot = None if found.server is None else found.server.slot
    return {
        "name": found.name,
        "system": str(found.system),
        "timeline": found.timeline,
        "stored_lsn": lsn(found.stored_lsn),
        "last_commit": found.last_commit,
        "lag_s": found.lag_s,
        "lag_bytes": found.lag_bytes,
        "server": None
        if found.server is None
        else {
            "lsn": lsn(found.server.position),
            "slot": None
            if slot is None
            else {
                "name": slot.name,
                "active": slot.is_active,
                "wal_status": slot.status,
                "safe_wal_size": slot.left,
                "restart_lsn": lsn(slot.kept_from),
            },
            "archiving": jsonout.plain(found.server.archiving),
        },
        "gaps": [_gap_document(gap) for gap in found.gaps],
        "windows": [_window_document(window) for window in found.windows],
        "problems": list(found.problems),
    }


def _show_status(context: Context, found: PgStatus) -> None:
    from backstay.sources.postgres.lsn import format_lsn

    slot = None if found.server is None else found.server.slot
    archiving = None if found.server is None or not found.server.archiving.is_on else found.server.archiving
    age = "" if found.last_commit is None else format_age(found.last_commit, now=context.clock.now())
    print_pairs(
        (
            ("name", found.name),
            ("cluster", str(found.system)),
            ("timeline", "" if found.timeline is None else str(found.timeline)),
            ("stored up to", "" if found.stored_lsn is None else format_lsn(found.stored_lsn)),
            ("last commit", "" if found.last_commit is None else f"{local_time(found.last_commit)} ({age})"),
            ("behind", _behind(found)),
            ("slot", "" if slot is None else f"{slot.name}, {slot.status}, {'' if slot.is_active else 'not '}in use"),
            ("may grow by", "" if slot is None or slot.left is None else format_size(slot.left)),
            ("archived", "" if archiving is None else archiving.last_file or "nothing yet"),
            ("to be archived", "" if archiving is None or not archiving.waiting else plural(archiving.waiting, "file")),
        ),
        context.environ,
    )
    if found.windows:
        print_heading("recovery windows", context.environ)
        _show_windows(context, list(found.windows))
    for problem in found.problems:
        context.warn(problem)


def _behind(found: PgStatus) -> str:
    parts = []
    if found.lag_bytes is not None:
        parts.append(format_size(found.lag_bytes))
    if found.lag_s is not None:
        parts.append(format_duration(found.lag_s))
    return ", ".join(parts)
