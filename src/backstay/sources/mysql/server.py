"""Questions to a MySQL or MariaDB server, asked through its own client program."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from backstay.errors import BackstayError, NotFound, SourceRefused, SourceUnreachable, VersionUnsupported
from backstay.sources.mysql.address import Address
from backstay.sources.mysql.programs import Program, client

CONNECT_TIMEOUT_S: Final = 20
CHARSET: Final = "--default-character-set=utf8mb4"
_TICK_S: Final = 0.2
SYSTEM: Final = frozenset({"information_schema", "mysql", "performance_schema", "sys"})
_ERROR: Final = re.compile(r"ERROR (\d+) \((\w+)\)")
_ESCAPES: Final = {"n": "\n", "t": "\t", "0": "\0"}  # of --batch; other signs stand for themselves
_AWAY: Final = frozenset({1040, 1053, 1203, 2002, 2003, 2005, 2006, 2013})
_DENIED: Final = frozenset({1044, 1045, 1142, 1227, 1698})
_FACTS: Final = (
    "version", "version_comment", "log_bin", "server_id", "server_uid", "server_uuid", "gtid_mode",
    "character_set_server", "collation_server", "lower_case_table_names", "max_allowed_packet",
)  # fmt: skip
_SCHEMATA: Final = """
    SELECT schema_name, default_character_set_name, default_collation_name FROM information_schema.schemata"""
_HELD: Final = """
    SELECT table_schema, count(*), coalesce(sum(data_length), 0) FROM information_schema.tables GROUP BY 1"""
_OUTSIDE: Final = """
    SELECT table_schema, table_name, t.engine FROM information_schema.tables t
    JOIN information_schema.engines e ON e.engine = t.engine
    WHERE coalesce(transactions, 'NO') <> 'YES' ORDER BY 1, 2"""
_VERSIONED: Final = """
    SELECT table_schema, table_name FROM information_schema.tables
    WHERE table_type = 'SYSTEM VERSIONED' ORDER BY 1, 2"""
_OBJECTS: Final = (  # not one UNION: the collations of these columns differ
    "SELECT table_schema, table_name, replace(table_type, 'BASE ', '') FROM information_schema.tables ORDER BY 1, 2",
    "SELECT routine_schema, routine_name, routine_type FROM information_schema.routines ORDER BY 1, 2",
    "SELECT event_schema, event_name, 'EVENT' FROM information_schema.events ORDER BY 1, 2",
)
_DEFINITIONS: Final = (  # what has no rows, and when it came to be as it is
    """SELECT routine_schema, routine_name, lower(routine_type), concat(created, last_altered)
    FROM information_schema.routines""",
    "SELECT event_schema, event_name, 'event', concat(created, last_altered) FROM information_schema.events",
    "SELECT trigger_schema, trigger_name, 'trigger', coalesce(created, '') FROM information_schema.triggers",
    "SELECT table_schema, table_name, 'view', md5(view_definition) FROM information_schema.views",
    """SELECT table_schema, table_name, 'sequence', coalesce(create_time, '') FROM information_schema.tables
    WHERE table_type = 'SEQUENCE'""",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """One database; `tables` counts views too, `size` is an estimate in bytes."""

    name: str
    charset: str
    collation: str
    tables: int = 0
    size: int = 0


class Server:
    """A server that answered once; each question is a session of its own.

    Passwords come by the programs' own ways, ~/.my.cnf and MYSQL_PWD, or stand in the address.
    """

    def __init__(self, address: Address, environ: Mapping[str, str]) -> None:
        """Connect. Raises SourceUnreachable, SourceRefused, VersionUnsupported."""
        self.address = address
        self.environ = address.environ(environ)
        self._client = client(environ)
        names = ", ".join(f"'{name}'" for name in _FACTS)
        rows = self.query(f"SHOW GLOBAL VARIABLES WHERE variable_name IN ({names})")
        self.facts = {name.lower(): value for name, value in rows}
        self.version = self.facts.get("version", "")
        self.is_mariadb = "mariadb" in (self.version + self.facts.get("version_comment", "")).lower()

    @property
    def place(self) -> str:
        """What is connected to, for messages."""
        return f"the server at {self.address.name}"

    @property
    def id(self) -> str | None:
        """What tells it from all others; older versions of MariaDB have nothing of the kind."""
        return self.facts.get("server_uuid") or self.facts.get("server_uid") or None

    @property
    def logs(self) -> bool:
        """Whether it writes a binary log."""
        return self.facts.get("log_bin") == "ON"

    def same(self, names: Iterable[str]) -> frozenset[str]:
        """Names of databases in the form in which this server takes two for the same."""
        exact = self.facts.get("lower_case_table_names", "0") == "0"
        return frozenset(name if exact else name.lower() for name in names)

    def has(self, name: str) -> bool:
        """Whether there is a database of this name. Raises as `query` does."""
        return self.same([name]) <= self.same(self.databases())

    def query(self, sql: str, tick: Callable[[], None] | None = None) -> list[list[str]]:
        """The rows of one statement, as text. What `tick`, called meanwhile, raises ends it.

        Raises SourceRefused, SourceUnreachable, VersionUnsupported."""
        command = [self._client.path, *self.address.arguments, CHARSET, f"--connect-timeout={CONNECT_TIMEOUT_S}"]
        command += ["--batch", "--skip-column-names", "--no-auto-rehash", f"--execute={sql}"]
        try:
            status, output, said = _ended(command, self.environ, tick)
        except OSError as error:
            raise VersionUnsupported(
                f"{self._client.path} cannot be started", cause=error.strerror or str(error)
            ) from error
        if status != 0:
            raise _failure(self.place, said.decode(errors="replace"))
        return [_row(line) for line in output.decode(errors="surrogateescape").split("\n") if line]

    def databases(self) -> dict[str, Database]:
        """Those that the user sees, less the system's own. Raises as `query` does."""
        held = {name: (int(tables), int(float(size))) for name, tables, size in self.query(_HELD)}
        found = {}
        for name, charset, collation in self.query(_SCHEMATA):
            if name.lower() not in SYSTEM:
                tables, size = held.get(name, (0, 0))
                found[name] = Database(name=name, charset=charset, collation=collation, tables=tables, size=size)
        return dict(sorted(found.items()))

    def database(self, name: str) -> Database:
        """One of them. Raises NotFound, and as `query` does."""
        there = self.databases()
        found = next((database for database in there if self.same([database]) == self.same([name])), None)
        if found is None:
            raise NotFound(
                f"there is no database {name!r} at {self.address.name}",
                cause=f"the user sees {', '.join(there) or 'none'}",
                hint="check the name and what the user may read; upper and lower case differ on most servers",
            )
        return there[found]

    def outside_transactions(self, databases: Sequence[str]) -> list[str]:
        """Tables whose engine knows no transactions, as `database.table (engine)`. Raises as `query` does."""
        rows = self._rows_of(databases, _OUTSIDE)
        return [f"{schema}.{table} ({engine})" for schema, table, engine in rows]

    def versioned(self, databases: Sequence[str]) -> list[str]:
        """Tables that keep what their rows were, as `database.table`. Raises as `query` does."""
        return [f"{schema}.{table}" for schema, table in self._rows_of(databases, _VERSIONED)]

    def objects(self, databases: Sequence[str]) -> list[str]:
        """Tables, views, routines and events, as `table database.name`. Raises as `query` does."""
        rows = [row for sql in _OBJECTS for row in self._rows_of(databases, sql)]
        return [f"{kind.lower()} {schema}.{name}" for schema, name, kind in rows]

    def prepared(self) -> list[str]:
        """The XA transactions that were prepared and wait for their end; none where the user may not ask for them.

        Raises SourceUnreachable.
        """
        try:
            rows = self.query("XA RECOVER")
        except SourceRefused:
            return []
        return [name for _, _, _, name in rows]

    def definitions(self, databases: Sequence[str]) -> frozenset[tuple[str, str]]:
        """Routines, events, triggers, views and sequences, as `view database.name`, each with its state.

        Raises as `query` does.
        """
        rows = [row for sql in _DEFINITIONS for row in self._rows_of(databases, sql)]
        return frozenset((f"{kind} {schema}.{name}", state) for schema, name, kind, state in rows)

    def binary_logs(self) -> dict[str, int]:
        """The files of its binary log that it still has, oldest first, with their sizes in bytes.

        Raises as `query` does.
        """
        return {row[0]: int(row[1]) for row in self.query("SHOW BINARY LOGS")}

    def _rows_of(self, databases: Sequence[str], sql: str) -> list[list[str]]:
        """The rows whose first value is the name of one of these databases."""
        wanted = self.same(databases)
        return [row for row in self.query(sql) if self.same(row[:1]) <= wanted]

    def tells_accounts(self) -> bool:
        """Whether the user may read who else has an account. Raises SourceUnreachable."""
        try:
            self.query("SELECT 1 FROM mysql.user LIMIT 1")
        except SourceRefused:
            return False
        return True

    def client(self) -> Program:
        """The program that a restore goes through. Raises VersionUnsupported."""
        return client(self.environ, mariadb=self.is_mariadb)


def _ended(
    command: Sequence[str], environ: Mapping[str, str], tick: Callable[[], None] | None
) -> tuple[int, bytes, bytes]:
    """(status, output, what it said) of a program. Raises OSError, and what `tick` raises, which kills it."""
    with subprocess.Popen(
        command,
        env=environ,
        cwd="/",
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    output, said = process.communicate(timeout=None if tick is None else _TICK_S)
                    return process.returncode, output, said
                if tick is not None:
                    tick()
        except BaseException:
            process.kill()
            raise


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return "`" + name.replace("`", "``") + "`"


def _failure(place: str, said: str) -> BackstayError:
    """What the client program says that could not connect, or was refused."""
    text = " ".join(said.split())
    told = _ERROR.search(text)
    text = text[told.start() :] if told else text  # without the statement, which some clients repeat
    number, state = (int(told[1]), told[2]) if told else (0, "")
    if number in _AWAY:
        return SourceUnreachable(f"cannot connect to {place}", cause=text)
    if number in _DENIED:
        hint = "check the user and what it may do; a password in ~/.my.cnf goes before MYSQL_PWD and the address"
        return SourceRefused(f"{place} denies access", cause=text, hint=hint, state=state)
    return SourceRefused(f"{place} does not do what is needed", cause=text or "its client failed", state=state)


def _row(line: str) -> list[str]:
    return [_plain(field) for field in line.split("\t")]


def _plain(field: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), field)
