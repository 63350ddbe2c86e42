"""What a database holds already, as far as a dump may come into conflict with it or rely on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from backstay.sources.postgres.archive import Entry
from backstay.sources.postgres.connection import Connection

Named: TypeAlias = Mapping[tuple[str, str], str]  # (schema, name) to the command that drops it

RELATIONS: Final = frozenset({"TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE", "INDEX"})
TYPES: Final = frozenset({"TYPE", "DOMAIN", "SHELL TYPE"})
ROUTINES: Final = frozenset({"FUNCTION", "PROCEDURE", "AGGREGATE"})
CREATED: Final = RELATIONS | TYPES | ROUTINES  # of which it can be told whether they exist
_GO_WITH_TABLES: Final = frozenset({"SEQUENCE", "INDEX"})
_OURS: Final = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
_RELATIONS: Final = """
    SELECT n.nspname, relname, 'DROP ' || CASE relkind
        WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' WHEN 'f' THEN 'FOREIGN TABLE'
        WHEN 'i' THEN 'INDEX' WHEN 'I' THEN 'INDEX' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END
        || format(' IF EXISTS %I.%I', n.nspname, relname)
    FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"""
_TYPES: Final = """
    SELECT n.nspname, typname, format('DROP TYPE IF EXISTS %I.%I', n.nspname, typname)
    FROM pg_type JOIN pg_namespace n ON n.oid = typnamespace"""
# As pg_dump names them: bare types are those of pg_catalog, others have their schema before them.
_ROUTINES: Final = """
    SELECT n.nspname, proname || '(' || CASE WHEN prokind = 'a' AND pronargs = 0 THEN '*' ELSE array_to_string(ARRAY(
        SELECT format_type(t, NULL) FROM unnest(proargtypes) WITH ORDINALITY u(t, i) ORDER BY i), ', ') END || ')',
        'DROP ROUTINE IF EXISTS ' || p.oid::regprocedure
    FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace"""
_FOREIGN_KEYS: Final = """
    SELECT n.nspname, relname, format('ALTER TABLE %I.%I DROP CONSTRAINT IF EXISTS %I', n.nspname, relname, conname)
    FROM pg_constraint c JOIN pg_class r ON r.oid = conrelid JOIN pg_namespace n ON n.oid = relnamespace
    WHERE contype = 'f' AND conparentid = 0"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """The names that are taken, and the roles and extensions there are."""

    schemas: frozenset[str]
    relations: Named
    types: Named
    routines: Named
    foreign_keys: tuple[tuple[str, str, str], ...]  # (schema, table, the command that drops it)
    extensions: frozenset[str]
    available: frozenset[str]  # extensions that could be made
    roles: frozenset[str]
    own_roles: frozenset[str]  # those that the session may give objects to

    def has(self, entry: Entry) -> bool:
        """Whether an object of this name is there already."""
        if entry.kind == "SCHEMA":
            return entry.name in self.schemas
        if entry.kind == "EXTENSION":
            return entry.name in self.extensions
        return self._drop(entry) is not None

    def drops(self, entries: Iterable[Entry]) -> list[str]:
        """The commands that remove what is there under the names of entries, and nothing that relies on it.

        Foreign keys first, for tables may have some to each other; sequences and indexes last, for most go with their
        tables; the others in the reverse order of the dump, which is a good guess at what relies on what now.
        """
        entries = [entry for entry in entries if entry.kind in CREATED]
        named = {(entry.schema, entry.name) for entry in entries}
        keys = [command for schema, table, command in self.foreign_keys if (schema, table) in named]
        later = [entry for entry in entries if entry.kind in _GO_WITH_TABLES]
        first = [entry for entry in reversed(entries) if entry.kind not in _GO_WITH_TABLES]
        return keys + [command for entry in first + later if (command := self._drop(entry)) is not None]

    def _drop(self, entry: Entry) -> str | None:
        key = (entry.schema, entry.name)
        if entry.kind in RELATIONS or entry.kind in TYPES:
            return self.relations.get(key) or self.types.get(key)
        return self.routines.get(key) if entry.kind in ROUTINES else None


def look(connection: Connection) -> Present:
    """Raises SourceRefused, SourceUnreachable."""
    connection.query("SET search_path = ''")

    def names(sql: str) -> frozenset[str]:
        return frozenset(row[0] or "" for row in connection.query(sql))

    def named(sql: str) -> Named:
        return {(row[0] or "", row[1] or ""): row[2] or "" for row in connection.query(f"{sql} WHERE {_OURS}")}

    return Present(
        schemas=names("SELECT nspname FROM pg_namespace"),
        relations=named(_RELATIONS),
        types=named(_TYPES),
        routines=named(_ROUTINES),
        foreign_keys=tuple((row[0] or "", row[1] or "", row[2] or "") for row in connection.query(_FOREIGN_KEYS)),
        extensions=names("SELECT extname FROM pg_extension"),
        available=names("SELECT name FROM pg_available_extensions"),
        roles=names("SELECT rolname FROM pg_roles"),
        own_roles=names("SELECT rolname FROM pg_roles WHERE pg_has_role(oid, 'MEMBER')"),
    )
