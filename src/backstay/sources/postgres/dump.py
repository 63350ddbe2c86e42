"""A logical dump of one PostgreSQL database as a source: nothing is staged, pg_dump writes straight into chunks.

The dump is not compressed: a second one then stores only what changed, which is 50 times less than with gzip inside.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from backstay.core.clock import Clock
from backstay.errors import NotFound
from backstay.sources.generated import (
    BytesReader,
    GeneratedSource,
    dump_file,
    path_component,
)
from backstay.sources.postgres.connection import Connection
from backstay.sources.postgres.encodings import codec_of
from backstay.sources.postgres.login import Login, login
from backstay.sources.postgres.programs import Programs, programs_for
from backstay.sources.program import ProgramReader

KIND: Final = "postgresql"
DUMP, GLOBALS, FACTS = b"database.dump", b"globals.sql", b"database.json"
LOCK_WAIT_MS: Final = 600_000  # for a table that somebody alters: then the dump fails, instead of waiting for ever
_IDENTITY: Final = """
    SELECT current_database(), pg_encoding_to_char(encoding), datcollate, datctype
    FROM pg_database WHERE datname = current_database()"""
_SCHEMAS: Final = """
    SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1"""
_EXTENSIONS: Final = """
    SELECT extname, extversion, nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace ORDER BY 1"""
# As statistics have it: to measure a table takes a lock on it, which might be waited for without end.
_SIZES: Final = """
    SELECT nspname, sum(greatest(relpages, 0))::bigint * current_setting('block_size')::bigint
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND nspname !~ '^pg_' AND nspname <> 'information_schema' GROUP BY 1"""
_READS_PASSWORDS: Final = "SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT')"


def dump_source(
    url: str,
    schemas: Sequence[str],
    *,
    clock: Clock,
    environ: Mapping[str, str],
    warn: Callable[[str], None],
    tick: Callable[[], None] | None = None,
) -> GeneratedSource:
    """The source of a whole database, or of some schemas. `warn` is told what is left out.

    `tick` is called while the dump waits, such as for locks, and may raise what ends it.

    Raises SourceUnreachable, SourceRefused, VersionUnsupported, NotFound for a schema, InvalidRequest.
    """
    with Connection(url) as connection:
        found = _look(connection, schemas)
    programs = programs_for(found.version, environ, purpose=f"dumping PostgreSQL {found.version}")
    access = login(url, environ, database=found.database)
    if not found.reads_passwords:
        warn(f"the role may not read passwords, so {GLOBALS.decode()} has roles without them")
    facts = found.told(schemas, programs)
    dumping = _dump_command(programs, access, schemas, codec_of(found.encoding))
    roles = _globals_command(programs, access, found)
    place = _place(access, found.database, schemas)
    made = partial(dump_file, place, clock.now_ns())
    files = [
        made(FACTS, partial(BytesReader, facts), len(facts)),
        made(GLOBALS, partial(ProgramReader, roles, access.environ, warn, tick)),
        made(DUMP, partial(ProgramReader, dumping, access.environ, warn, tick), found.size),
    ]
    return GeneratedSource(KIND, [place], files)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What a database says of itself; `size` is about what will be dumped, in bytes."""

    version: int
    server: str
    database: str
    encoding: str
    collation: str
    ctype: str
    schemas: Sequence[str]
    extensions: Sequence[Sequence[str | None]]
    size: int
    reads_passwords: bool

    def told(self, schemas: Sequence[str], programs: Programs) -> bytes:
        """The file that tells it."""
        facts = {
            "server_version": self.server,
            "database": self.database,
            "encoding": self.encoding,
            "collation": self.collation,
            "ctype": self.ctype,
            "schemas": self.schemas,
            "dumped_schemas": list(schemas) or None,
            "extensions": [{"name": name, "version": of, "schema": schema} for name, of, schema in self.extensions],
            "dump_program": f"pg_dump {programs.version}",
        }
        return json.dumps(facts, indent=2, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"


def _look(connection: Connection, schemas: Sequence[str]) -> _Found:
    """Raises NotFound for a schema that is not there."""
    connection.query("SET search_path = ''")
    database, encoding, collation, ctype = (value or "" for value in connection.query(_IDENTITY)[0])
    there = [row[0] or "" for row in connection.query(_SCHEMAS)]
    for schema in schemas:
        if schema not in there:
            raise NotFound(
                f"there is no schema {schema!r} in the database {database!r}",
                cause=f"it has {', '.join(there) or 'none'}",
                hint="check the name; upper and lower case differ",
            )
    sizes = {schema: int(size or 0) for schema, size in connection.query(_SIZES)}
    return _Found(
        version=connection.version,
        server=connection.parameter("server_version"),
        database=database,
        encoding=encoding,
        collation=collation,
        ctype=ctype,
        schemas=there,
        extensions=connection.query(_EXTENSIONS),
        size=sum(size for schema, size in sizes.items() if not schemas or schema in schemas),
        reads_passwords=connection.value(_READS_PASSWORDS) == "t",
    )


def _dump_command(programs: Programs, access: Login, schemas: Sequence[str], codec: str) -> list[str]:
    command = [programs["pg_dump"], "--format=custom", "--compress=0", "--no-password", "--strict-names"]
    command.append(f"--lock-wait-timeout={LOCK_WAIT_MS}")
    for schema in schemas:
        quoted = schema.replace('"', '""')
        # Quoted, for else it is a pattern, and lower case; in the encoding of the database, which the dump has too.
        command.append(os.fsdecode(f'--schema="{quoted}"'.encode(codec, "surrogateescape")))
    return [*command, f"--dbname={access.conninfo}"]


def _globals_command(programs: Programs, access: Login, found: _Found) -> list[str]:
    from psycopg import conninfo

    # Not bare: libpq takes a name that looks like connection settings for such, and would go where they say.
    database = conninfo.make_conninfo("", dbname=found.database)
    command = [programs["pg_dumpall"], "--globals-only", "--no-password", f"--database={database}"]
    if not found.reads_passwords:
        command.append("--no-role-passwords")
    return [*command, f"--dbname={access.conninfo}"]


def _place(access: Login, database: str, schemas: Sequence[str]) -> bytes:
    """The directory of a dump in its snapshot; it names what is dumped, and not who dumps it."""
    parts = [KIND, f"{access.host}:{access.port}", database]
    if schemas:
        parts.append(",".join(sorted(schemas)))
    return b"".join(b"/" + path_component(part) for part in parts)
