"""A logical dump of MySQL or MariaDB as a source: nothing is staged, the dump program writes straight into chunks.

The dump is not compressed, and its statements are long: each new row moves the ends of all statements behind it, and
every end that moves costs two chunks. With 8 MiB a second dump stores a quarter less than with the usual 1 MiB, nearly
as little as with statements of one row each, which take ten times as long to restore.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from backstay.core.clock import Clock
from backstay.errors import BackstayError, DumpFailed, NotFound
from backstay.sources.generated import (
    ByteReader,
    BytesReader,
    GeneratedSource,
    dump_file,
    path_component,
)
from backstay.sources.mysql.address import parse_address
from backstay.sources.mysql.programs import Program, dumper
from backstay.sources.mysql.server import CHARSET, Database, Server
from backstay.sources.program import ProgramReader

KIND: Final = "mysql"
ACCOUNTS, ONE, ALL, FACTS = b"accounts.sql", b"database.sql", b"databases.sql", b"server.json"  # read in this order
STATEMENT: Final = 8 << 20  # bytes at most; servers take 16 MiB (MariaDB) or 64 MiB (MySQL) unless told otherwise
_NAMED: Final = 5  # in a message
_HEAD: Final = 16 << 10
_TAIL: Final = 8 << 10
_SAYS_SOURCE: Final = (8, 0, 26)  # the version of mysqldump from which on it does not say `master`
_KNOWS_ACCOUNTS: Final = (10, 5)
_POSITION: Final = re.compile(
    rb"^-- CHANGE (?:MASTER|REPLICATION SOURCE) TO (?:MASTER|SOURCE)_LOG_FILE='([^'\n]+)',"
    rb" (?:MASTER|SOURCE)_LOG_POS=(\d+);",
    re.MULTILINE,
)
_GTID: Final = re.compile(rb"^-- SET GLOBAL gtid_slave_pos='([^'\n]*)';", re.MULTILINE)
_LOST: Final = (
    "look into the server's log, and run the same backup again; if the store was slow, raise net_write_timeout first"
)
_COMPLETED: Final = b"\n-- Dump completed"


def mysql_source(url: str, *, clock: Clock, environ: Mapping[str, str], warn: Callable[[str], None]) -> GeneratedSource:
    """The source of one database, or of all but the system's own. `warn` is told what the dump lacks.

    Raises SourceUnreachable, SourceRefused, VersionUnsupported, NotFound for a database, InvalidRequest.
    """
    address = parse_address(url)
    server = Server(address, environ)
    databases = [server.database(address.database)] if address.database else list(server.databases().values())
    one = databases[0].name if address.database else None
    if not databases:
        raise NotFound(
            f"there is no database at {address.name}",
            cause="the user sees none but the system's own",
            hint="check the address and what the user may read",
        )
    names = [database.name for database in databases]
    _warn(server, names, warn)
    program = dumper(environ, mariadb=server.is_mariadb)
    # Nothing is replayed onto a dump of one database, and a log that is not there contradicts none.
    definitions = partial(server.definitions, names) if server.logs and not one else frozenset[tuple[str, str]]
    command = _command(program, server, names, one=bool(one))
    dump = _Dump(program, command, server.environ, warn, logged=server.logs, definitions=definitions)
    place = b"".join(b"/" + path_component(part) for part in (KIND, address.name, *([one] if one else [])))
    made = partial(dump_file, place, clock.now_ns())
    files = [
        made(ONE if one else ALL, dump.open, sum(database.size for database in databases)),
        made(FACTS, partial(_facts, server, databases, program, dump)),
    ]
    if not one and (accounts := _accounts_command(program, server, warn)):
        files.append(made(ACCOUNTS, partial(ProgramReader, accounts, server.environ, warn)))
    return GeneratedSource(KIND, [place], files, consistency=partial(_consistency, server, dump))


def _command(program: Program, server: Server, names: Sequence[str], *, one: bool) -> list[str]:
    command = [program.path, *server.address.arguments, CHARSET, "--single-transaction", "--quick", "--hex-blob"]
    command += ["--routines", "--events", "--triggers", "--skip-dump-date", "--max-allowed-packet=1G"]
    command += ["--comments", "--no-tablespaces"]  # which tell the moment; which ask for rights and are of NDB only
    command.append(f"--net-buffer-length={STATEMENT}")
    if server.logs:
        command.append(position_option(program))
    if not program.is_mariadb:
        command.append("--set-gtid-purged=OFF")  # else a restore asks for rights that few have
    if not one:
        command.append("--databases")
    return [*command, "--", *names]


def _accounts_command(program: Program, server: Server, warn: Callable[[str], None]) -> list[str] | None:
    """What writes accounts and their rights as SQL; None, and a warning, where that cannot be done."""
    if not program.is_mariadb or program.version < _KNOWS_ACCOUNTS:
        warn("accounts and their rights are not dumped: only mariadb-dump 10.5 and newer can do that")
        return None
    if not server.tells_accounts():
        warn("accounts and their rights are not dumped: the user may not read the database mysql")
        return None
    return [program.path, *server.address.arguments, CHARSET, "--skip-dump-date", "--system=users"]


def position_option(program: Program) -> str:
    """What makes a dump program tell the position, in a comment."""
    says_source = not program.is_mariadb and program.version >= _SAYS_SOURCE
    return "--source-data=2" if says_source else "--master-data=2"


class _Dump:
    """The dump while it is read, and the moment that it tells of itself."""

    def __init__(
        self,
        program: Program,
        command: Sequence[str],
        environ: Mapping[str, str],
        warn: Callable[[str], None],
        *,
        logged: bool,
        definitions: Callable[[], frozenset[tuple[str, str]]],
    ) -> None:
        """`definitions` are asked for before and after: they are dumped as they are found, not as of the moment."""
        self._definitions = definitions
        self._found = frozenset[tuple[str, str]]()
        self._program, self._command, self._environ, self._warn = program, command, environ, warn
        self._logged = logged
        self._head = self._tail = b""
        self._moment: dict[str, str] | None = None

    def open(self) -> ByteReader:
        """Begin."""
        self._head = self._tail = b""
        self._moment = None
        self._found = self._definitions()
        return _Watched(ProgramReader(self._command, self._environ, self._warn), self)

    def passed(self, data: bytes) -> None:
        """Bytes of it were read."""
        if len(self._head) < _HEAD:
            self._head += data[: _HEAD - len(self._head)]
        self._tail = (self._tail + data[-_TAIL:])[-_TAIL:]

    def finished(self) -> None:
        """All of it was read. Raises DumpFailed when it does not end as a whole one does."""
        if _COMPLETED not in self._tail:
            raise DumpFailed(f"{self._program.path} wrote no whole dump", cause="its last line is missing")
        if changed := sorted({name for name, _ in self._found ^ self._definitions()}):
            raise DumpFailed(
                "definitions changed while they were dumped",
                cause=f"{_few(changed)}: the dump may have what the binary log behind its position makes again",
                hint="run the same backup again",
            )
        self._moment = self._told() if self._logged else {}

    def position(self) -> dict[str, str]:
        """The position in the binary log that belongs to the dump; empty if the server writes none."""
        assert self._moment is not None, "asked for before the dump was read"
        return self._moment

    def _told(self) -> dict[str, str]:
        found = position_in(self._head)
        if not found:
            raise DumpFailed(
                f"{self._program.path} does not tell the position in the binary log",
                cause="the head of the dump lacks it",
                hint="check that its options are not changed by an option file such as ~/.my.cnf",
            )
        if gtids := _GTID.findall(self._tail):
            found["gtid_position"] = gtids[-1].decode(errors="replace")
        return found


def position_in(head: bytes) -> dict[str, str]:
    """The position in the binary log that the head of a dump tells; empty if it tells none."""
    found = _POSITION.search(head)
    if found is None:
        return {}
    return {"binlog_file": found[1].decode(errors="replace"), "binlog_position": found[2].decode()}


class _Watched:
    """The output of the program, and the dump that looks at it passing by."""

    def __init__(self, reader: ProgramReader, dump: _Dump) -> None:
        self._reader, self._dump = reader, dump

    def read(self, size: int) -> bytes:
        data = self._reader.read(size)
        self._dump.passed(data)
        return data

    def finish(self) -> None:
        try:
            self._reader.finish()
        except BackstayError as error:
            raise _explained(error) from error
        self._dump.finished()

    def abandon(self) -> None:
        self._reader.abandon()


def _explained(error: BackstayError) -> BackstayError:
    hints = {
        "Table definition has changed": "a table was altered meanwhile: run the same backup again",
        "Lost connection": _LOST,
        "gone away": "run the same backup again when the server is back",
        "references invalid table": "mend or drop the view that it names: it cannot be read by anybody",
        "insufficient privileges": "the user needs SELECT on mysql.proc (MariaDB) or SHOW_ROUTINE (MySQL)",
        "Access denied": "the user needs SELECT, SHOW VIEW, TRIGGER, EVENT and LOCK TABLES on what is dumped, and "
        "REPLICATION CLIENT (BINLOG MONITOR) and RELOAD for the position in the binary log",
    }
    silent = ": " not in error.cause  # as these programs are when the connection is lost between two tables
    hint = next((text for sign, text in hints.items() if sign in error.cause), _LOST if silent else error.hint)
    return DumpFailed(error.title, cause=error.cause, hint=hint)


def _consistency(server: Server, dump: _Dump) -> dict[str, str]:
    return {"server_version": server.version, **({"server_id": server.id} if server.id else {}), **dump.position()}


def _facts(server: Server, databases: Sequence[Database], program: Program, dump: _Dump) -> BytesReader:
    told = {
        "server_version": server.version,
        "server_id": server.id,
        "character_set": server.facts.get("character_set_server"),
        "collation": server.facts.get("collation_server"),
        "databases": [
            {"name": d.name, "character_set": d.charset, "collation": d.collation, "tables": d.tables}
            for d in databases
        ],
        "binary_log": dump.position() or None,
        "dump_program": program.path.rpartition("/")[2],
    }
    return BytesReader(json.dumps(told, indent=2, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n")


def _warn(server: Server, names: Sequence[str], warn: Callable[[str], None]) -> None:
    if found := server.outside_transactions(names):
        warn(
            "what is written meanwhile into tables without transactions may be missing in the dump, or half of it: "
            + _few(found)
        )
    if server.logs and (found := server.prepared()):
        warn(
            "prepared XA transactions are not in the dump, and a recovery that begins at it does not get over their "
            f"ends: {_few(found)}; make a dump when they have ended"
        )
    if found := server.versioned(names):
        warn(f"of system-versioned tables the present rows are dumped, without their history: {_few(found)}")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
