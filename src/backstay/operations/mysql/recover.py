"""Recover a MySQL or MariaDB server to a target: a dump, and then the binary log behind it.

Order: the server is looked at, the dump is restored, and the files of the log are replayed one after the other. These
servers commit as they go: a crash leaves what was done until then. The next try finds it and refuses; an emptied
server is recovered from the beginning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backstay.core.events import EventSink, Progress, Started, Warned, finished, ignore
from backstay.core.quantities import plural
from backstay.errors import InsufficientSpace, InvalidRequest, RestoreConflict
from backstay.operations.mysql.log_origin import is_origin, scratch
from backstay.operations.mysql.plan import LogPart, ReplayPlan
from backstay.operations.restore.mysql_dump import plan_mysql_restore, run_mysql_restore
from backstay.operations.restore.request import RestoreOptions
from backstay.repository.repository import Repository
from backstay.sources.mysql.address import parse_address
from backstay.sources.mysql.programs import log_reader
from backstay.sources.mysql.restoring import run_client
from backstay.sources.mysql.server import Server
from backstay.sources.program import ProgramReader

_READ: Final = 1 << 20
_NAMED: Final = 5  # in a message
_OPTIONS: Final = RestoreOptions()
_AGAIN: Final = "drop the databases that were restored, mend it, and recover again"
_OLDER: Final = (
    "where the dump has what the log makes once more, name an older one: `backstay mysql windows` lists them"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryTargetServer:
    """The server that a plan would be carried out on, and what to know before that is done."""

    server: Server
    warnings: tuple[str, ...]


def look_at_target(
    repository: Repository, plan: ReplayPlan, url: str, *, environ: Mapping[str, str], events: EventSink = ignore
) -> RecoveryTargetServer:
    """See that a server may be recovered into, and change nothing.

    Raises InvalidRequest for the server whose log it is, RestoreConflict unless it is empty, SourceUnreachable,
    SourceRefused, VersionUnsupported.
    """
    address = parse_address(url)
    if address.database:
        raise InvalidRequest(
            "a recovery is one of a whole server",
            cause=f"the address names the database {address.database!r}",
            hint="leave it out: mysql://user@host:port/",
        )
    server = Server(address, environ)
    if is_origin(repository, plan.archive.system, server):
        raise InvalidRequest(
            f"{server.place} is the one whose binary log is stored, nothing was written",
            cause="what is replayed there would be logged again, behind what it has logged",
            hint="recover into another server, and copy from there what is wanted",
        )
    found = server.objects(list(server.databases()))
    if found:
        raise RestoreConflict(
            f"{plural(len(found), 'object exists', 'objects exist')} at {server.place}, nothing was written",
            cause=", ".join(found[:_NAMED]) + (", …" if len(found) > _NAMED else ""),
            hint="recover into a server that is new, or whose databases were dropped",
            paths=tuple(found),
        )
    log_reader(environ, mariadb=server.is_mariadb)
    restore = plan_mysql_restore(repository, plan.dump.manifest, url, _OPTIONS, environ=environ, events=events)
    return RecoveryTargetServer(server=server, warnings=(*restore.warnings, *_warnings(plan, server)))


def recover(
    repository: Repository, plan: ReplayPlan, url: str, *, environ: Mapping[str, str], events: EventSink = ignore
) -> None:
    """Restore the dump and replay the log. Raises what looking does before anything is written, RestoreFailed after.

    The same checks are made again: between a plan and its execution somebody may have used the server.
    """
    target = look_at_target(repository, plan, url, environ=environ, events=events)
    for warning in _warnings(plan, target.server):
        events(Warned(message=warning))
    run_mysql_restore(repository, plan.dump.manifest, url, _OPTIONS, environ=environ, events=events)
    events(Started(operation="replay the binary log", total_bytes=plan.bytes))
    program = log_reader(environ, mariadb=target.server.is_mariadb)
    with scratch(repository) as place:

        def passed(part: LogPart) -> None:
            done = sum(other.end - other.start for other in plan.parts if other.log.start <= part.log.start)
            events(Progress(files=0, bytes=done, current=part.log.file))

        run_client(
            target.server,
            None,
            _statements(plan, program, environ, place, passed, lambda text: events(Warned(message=text))),
            progress=lambda _given: None,
            left_over=f"{_AGAIN}; {_OLDER}",
        )
    finished(events, "replay the binary log")


def _statements(
    plan: ReplayPlan,
    program: str,
    environ: Mapping[str, str],
    place: Path,
    passed: Callable[[LogPart], None],
    warn: Callable[[str], None],
) -> Iterator[bytes]:
    """The log as SQL. Each file is cut off where the recovery ends, so that its reader has nothing to decide."""
    for part in plan.parts:
        staged = place / part.log.file
        _stage(plan, part, staged)
        command = [program, "--no-defaults", f"--start-position={part.start}", str(staged)]
        reader = ProgramReader(command, {**environ, "LC_ALL": "C", "TMPDIR": str(place)}, warn)
        try:
            while data := reader.read(_READ):
                yield data
            reader.finish()
        finally:
            reader.abandon()
        staged.unlink()
        passed(part)


def _stage(plan: ReplayPlan, part: LogPart, staged: Path) -> None:
    left = part.end
    try:
        with staged.open("wb") as file:
            for data in plan.archive.data(part.log):
                file.write(data[:left])
                left -= min(left, len(data))
                if not left:
                    break
    except OSError as error:
        raise InsufficientSpace(
            f"the binary log cannot be laid ready in {staged.parent}",
            cause=error.strerror or str(error),
            hint=f"make room in the cache directory for one file of the log; {_AGAIN}",
        ) from error


def _warnings(plan: ReplayPlan, server: Server) -> Iterator[str]:
    if plan.left_out:
        yield (
            f"{plural(plan.left_out, 'transaction')} behind {plan.end}, with times before {plan.target}, are left out: "
            "what lies there has a later time, as when a clock was ahead; --position goes further"
        )
    if plan.accounts:
        yield (
            f"the log has {plural(plan.accounts, 'statement')} about accounts: load accounts.sql of snapshot "
            f"{plan.dump.snapshot} before, or a statement may fail that names an account which is not there"
        )
    rows = server.query("SHOW GLOBAL VARIABLES WHERE variable_name IN ('event_scheduler', 'gtid_strict_mode')")
    settings = {name.lower(): value for name, value in rows}
    if settings.get("event_scheduler") == "ON":
        yield "event_scheduler is ON there: events that are restored may run while the log is replayed"
    if settings.get("gtid_strict_mode") == "ON" and server.logs:
        yield "gtid_strict_mode is ON there: the server may refuse transactions that it takes for older ones"
