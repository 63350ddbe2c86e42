"""See whether a server is ready for base backups and its WAL, and what has to be done until it is.

A plan is made without changing anything; what SQL can do of it is carried out by a second call.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from backstay.core.quantities import format_duration
from backstay.errors import BackstayError, ReplicationDenied, WalLevelTooLow
from backstay.operations.clusters.receive import slot_name
from backstay.sources.postgres.access import hba_line, quoted
from backstay.sources.postgres.base_backup import INCREMENTAL_FROM, OLDEST
from backstay.sources.postgres.connection import Connection
from backstay.sources.postgres.inspection import ServerFacts, inspect

Way: TypeAlias = Literal["stream", "archive"]  # how WAL comes: `pg receive`, or archive_command
State: TypeAlias = Literal["ok", "should", "must"]

SENDERS: Final = 3  # one of a receiver, two of a base backup
SUMMARIES_DAYS: Final = 8  # so that weekly base backups find them
KEPT: Final = "64GB"  # what a slot may keep, unless somebody knows better
_BRINGS: Final = re.compile(r"\bbackstay\b|-I -S \S+ %p")  # the program itself, or the client of its service
_KEEPS_NOTHING: Final = re.compile(r"(^|[;&|(])\s*(/usr)?(/bin/)?true\b|^\s*:\s*$|\bexit\s+0\b|/bin/true\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupOptions:
    """`role` will receive, that of `url` if None. `rpo` is in seconds: how much may be lost of what was written."""

    url: str
    name: str
    role: str | None = None
    way: Way = "stream"
    rpo: float = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. `sql` mends it, or `by_hand` says how; some only count after a restart."""

    subject: str
    state: State
    text: str
    sql: tuple[str, ...] = ()
    by_hand: str = ""
    restart: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupPlan:
    """All findings, in the order in which they are best mended."""

    name: str
    place: str
    role: str
    findings: tuple[Finding, ...]

    def count(self, state: State) -> int:
        return sum(finding.state == state for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Applied:
    """A command that was run, and what the server said against it, if anything."""

    sql: str
    error: str
    restart: bool


def plan_setup(options: SetupOptions) -> SetupPlan:
    """Look at a server. Raises SourceUnreachable, SourceRefused and their kin, InvalidRequest."""
    server = inspect(options.url, slot_name(options.name), options.role)
    checks: list[Callable[[ServerFacts, SetupOptions], Iterator[Finding]]] = [
        _version,
        _wal_level,
        _places,
        _role,
        _replication,
        _slot_limit,
        _slot,
        _summaries,
        _archiving,
        _durability,
        _checksums,
        _restart,
    ]
    findings = tuple(finding for check in checks for finding in check(server, options))
    return SetupPlan(name=options.name, place=server.place, role=options.role or server.user, findings=findings)


def apply_setup(options: SetupOptions, plan: SetupPlan) -> list[Applied]:
    """Run the SQL of a plan as the role of `url`, and have the server read its settings; each command by itself.

    Raises SourceUnreachable, SourceRefused.
    """
    commands = [(sql, finding.restart) for finding in plan.findings for sql in finding.sql]
    if not commands:
        return []
    with Connection(options.url, application="backstay setup") as plain:
        done = [Applied(sql, _run(plain, sql), restart) for sql, restart in commands]
        done.append(Applied("SELECT pg_reload_conf()", _run(plain, "SELECT pg_reload_conf()"), restart=False))
    return done


def _run(plain: Connection, sql: str) -> str:
    try:
        plain.query(sql)
    except BackstayError as error:
        return error.cause
    return ""


def _set(setting: str, value: str) -> tuple[str]:
    return (f"ALTER SYSTEM SET {setting} = '{value}'",)


def _set_once(server: ServerFacts, setting: str, value: str) -> tuple[str, ...]:
    """The command for a setting that counts after a restart; none if it waits for that already."""
    return () if setting in server.pending else _set(setting, value)


# -- what must be


def _version(server: ServerFacts, options: SetupOptions) -> Iterator[Finding]:
    del options
    text = f"the server has version {server.version}"
    if server.version >= OLDEST:
        yield Finding(subject="version", state="ok", text=text)
    else:
        why = f"{text}: base backups are made of version {OLDEST} and later"
        yield Finding(subject="version", state="must", text=why, by_hand="upgrade the server")


def _wal_level(server: ServerFacts, options: SetupOptions) -> Iterator[Finding]:
    del options
    level = server.settings["wal_level"]
    if level in ("replica", "logical"):
        yield Finding(subject="wal_level", state="ok", text=f"wal_level is {level}")
    else:
        yield Finding(
            subject="wal_level",
            state="must",
            text=f"wal_level is {level}: the server logs too little to be recovered from it",
            sql=_set_once(server, "wal_level", "replica"),
            restart=True,
        )


def _places(server: ServerFacts, options: SetupOptions) -> Iterator[Finding]:
    """Senders and slots: one of each for a receiver, and those of a base backup beside it."""
    wanted = SENDERS if options.way == "stream" else SENDERS - 1
    receives = server.slot is not None and server.slot.is_active
    yield _place(server, "max_wal_senders", server.senders - receives, wanted)
    has_slot = server.slot is not None or options.way == "archive"
    yield _place(server, "max_replication_slots", server.slots, 1 if has_slot else 2)


def _place(server: ServerFacts, setting: str, used: int, wanted: int) -> Finding:
    limit = server.number(setting)
    text = f"{setting} is {limit}, of which {used} are used by others"
    if limit - used >= wanted:
        return Finding(subject=setting, state="ok", text=text)
    return Finding(
        subject=setting,
        state="must",
        text=f"{text}: {wanted} more are needed",
        sql=_set_once(server, setting, str(max(10, used + wanted))),
        restart=True,
    )


def _role(server: ServerFacts, options: SetupOptions) -> Iterator[Finding]:
    name = options.role or server.user
    if server.role is None:
        yield Finding(
            subject="role",
            state="must",
            text=f"there is no role {name}",
            sql=(f"CREATE ROLE {quoted(name)} LOGIN REPLICATION",),
            by_hand=f"give it a password: \\password {name} in psql",
        )
    elif not server.role.may_replicate or not server.role.may_log_in:
        yield Finding(
            subject="role",
            state="must",
            text=f"role {name} may not replicate, or not log in",
            sql=(f"ALTER ROLE {quoted(name)} LOGIN REPLICATION",),
        )
    else:
        yield Finding(subject="role", state="ok", text=f"role {name} may replicate")


def _replication(server: ServerFacts, options: SetupOptions) -> Iterator[Finding]:
    """A connection is really made: pg_hba.conf has many ways to say no."""
    role = options.role or server.user
    line = hba_line(role, server.address)
    if role != server.user:
        text = f"whether {role} may connect for replication is seen with an address that names it"
        yield Finding(subject="pg_hba.conf", state="should", text=text, by_hand=f"a line in pg_hba.conf: {line}")
        return
    try:
        with Connection(options.url, replication=True, application="backstay setup") as connection:
            connection.query("IDENTIFY_SYSTEM")
    except ReplicationDenied as error:
        by_hand = f"a line in pg_hba.conf, then SELECT pg_reload_conf(): {line}"
        yield Finding(subject="pg_hba.conf", state="must", text=str(error), by_hand=by_hand)
    except WalLevelTooLow as error:  # what is needed for it stands above
        yield Finding(subject="pg_hba.conf", state="must", text=str(error), by_hand="run this again after the restart")
    except BackstayError as error:
        yield Finding(subject="pg_hba.conf", state="must", text=str(error), by_hand=error.hint)
    else:
        yield Finding(subject="pg_hba.conf", state="ok", text=f"{role} can connect for replication")


def _restart(server: ServerFacts, options: SetupOptions) -> Iterator[Finding]:
    del options
    if server.pending:
        names = ", ".join(sorted(server.pending))
        text = f"settings were changed that count only after a restart: {names}"
        yield Finding(subject="restart", state="must", text=text, by_hand="restart the server", restart=True)


# -- what keeps WAL


def _slot_limit(server: ServerFacts, options: SetupOptions) -> Iterator[Finding]:
    if options.way == "archive":
        return
    limit = server.number("max_slot_wal_keep_size")
    if limit >= 0:
        yield Finding(subject="max_slot_wal_keep_size", state="ok", text=f"a slot keeps {limit} MB of WAL at most")
    else:
        yield Finding(
            subject="max_slot_wal_keep_size",
            state="should",
            text="a slot keeps WAL without a limit: a receiver that is away fills the disk, and the server stops; "
            "choose what the disk has room for",
            sql=_set("max_slot_wal_keep_size", KEPT),
        )


def _slot(server: ServerFacts, options: SetupOptions) -> Iterator[Finding]:
    if options.way == "archive":
        return
    name = slot_name(options.name)
    if server.slot is None:
        yield Finding(
            subject="slot",
            state="should",
            text=f"there is no slot {name} yet: `backstay pg receive` makes it; from then on the server keeps WAL",
            sql=(f"SELECT pg_create_physical_replication_slot('{name}', true)",),
        )
    elif server.slot.status == "lost":
        text = f"the server gave up WAL of the slot {name}: `backstay pg receive` makes it anew, with a base backup"
        yield Finding(subject="slot", state="must", text=text, by_hand="start the receiver")
    else:
        yield Finding(subject="slot", state="ok", text=f"the slot {name} is there, {server.slot.status}")


def _summaries(server: ServerFacts, options: SetupOptions) -> Iterator[Finding]:
    """What lets a base backup send only what changed."""
    del options
    if server.version < INCREMENTAL_FROM:
        return
    if not server.is_on("summarize_wal"):
        yield Finding(
            subject="summarize_wal",
            state="should",
            text="summarize_wal is off: every base backup has all files sent, not only what changed",
            sql=_set("summarize_wal", "on"),
        )
    else:
        yield Finding(subject="summarize_wal", state="ok", text="summarize_wal is on")
    minutes = server.number("wal_summary_keep_time")
    if 0 < minutes < SUMMARIES_DAYS * 24 * 60:
        yield Finding(
            subject="wal_summary_keep_time",
            state="should",
            text=f"summaries are kept for {format_duration(minutes * 60)}: base backups must be made more often, or "
            "have all files sent",
            sql=_set("wal_summary_keep_time", "10d"),
        )


def _archiving(server: ServerFacts, options: SetupOptions) -> Iterator[Finding]:
    command = server.settings["archive_command"]
    if options.way == "stream" and server.settings["archive_mode"] == "off":
        return
    if server.settings["archive_mode"] == "off":
        yield Finding(
            subject="archive_mode",
            state="must",
            text="archive_mode is off: no WAL is archived",
            sql=_set_once(server, "archive_mode", "on"),
            restart=True,
        )
    if _KEEPS_NOTHING.search(command):
        yield Finding(
            subject="archive_command",
            state="must" if options.way == "archive" else "should",
            text=f"archive_command says that WAL is archived when it is not: {command}",
            by_hand=_archive_command(options),
        )
    elif options.way == "archive" and not _BRINGS.search(command):
        text = f"archive_command does not bring WAL into the repository: {command or 'it is empty'}"
        yield Finding(subject="archive_command", state="must", text=text, by_hand=_archive_command(options))
    if options.way == "archive":
        yield _archive_timeout(server, options)


def _archive_command(options: SetupOptions) -> str:
    return f"archive_command = 'backstay -q -r REPOSITORY pg archive --name {options.name} %p || exit 1'"


def _archive_timeout(server: ServerFacts, options: SetupOptions) -> Finding:
    seconds, wanted = server.number("archive_timeout"), format_duration(options.rpo)
    if 0 < seconds <= options.rpo:
        text = f"WAL is archived every {format_duration(seconds)} at least"
        return Finding(subject="archive_timeout", state="ok", text=text)
    told = f"archived only after {format_duration(seconds)}" if seconds else "not archived before its segment is full"
    return Finding(
        subject="archive_timeout",
        state="must",
        text=f"WAL is {told}: more than {wanted} can be lost",
        sql=_set("archive_timeout", f"{int(options.rpo)}s"),
    )


# -- what makes a server worth backing up


def _durability(server: ServerFacts, options: SetupOptions) -> Iterator[Finding]:
    del options
    for setting in ("fsync", "full_page_writes"):
        if not server.is_on(setting):
            text = f"{setting} is off: a crash of the server's machine can damage what is backed up"
            yield Finding(subject=setting, state="should", text=text, sql=_set(setting, "on"))


def _checksums(server: ServerFacts, options: SetupOptions) -> Iterator[Finding]:
    del options
    directory = server.settings.get("data_directory", "DIR")  # which few roles may see
    if not server.is_on("data_checksums"):
        yield Finding(
            subject="data_checksums",
            state="should",
            text="data_checksums is off: damage of a page is backed up unseen",
            by_hand=f"while the server is stopped: pg_checksums --enable -D {directory}",
        )
