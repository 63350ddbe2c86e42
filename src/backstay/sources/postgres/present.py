"""What a database holds already, as far as a dump may come into conflict with it or rely on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from backstay.sources.postgres.archive import Entry
from backstay.sources.postgres.connection import Connection

Named: TypeAlias = frozenset[tuple[str, str]]  # (schema, name)

RELATIONS: Final = frozenset({"TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE", "INDEX"})
TYPES: Final = frozenset({"TYPE", "DOMAIN", "SHELL TYPE"})
ROUTINES: Final = frozenset({"FUNCTION", "PROCEDURE", "AGGREGATE"})
CREATED: Final = RELATIONS | TYPES | ROUTINES  # of which it can be told whether they exist
_OURS: Final = r"n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
# As pg_dump names routines: bare types are those of pg_catalog, others have their schema before them.
_SIGNATURE: Final = """proname || '(' || CASE WHEN prokind = 'a' AND pronargs = 0 THEN '*' ELSE
    array_to_string(ARRAY(
        SELECT format_type(t, NULL) FROM unnest(proargtypes) WITH ORDINALITY u(t, i) ORDER BY i), ', ') END || ')'"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """The names that are taken, and the roles and extensions there are."""

    schemas: frozenset[str]
    relations: Named
    types: Named
    routines: Named
    extensions: frozenset[str]
    available: frozenset[str]  # extensions that could be made
    roles: frozenset[str]
    own_roles: frozenset[str]  # those that the session may give objects to

    def has(self, entry: Entry) -> bool:
        """Whether an object of this name is there already."""
        key = (entry.schema, entry.name)
        if entry.kind == "SCHEMA":
            return entry.name in self.schemas
        if entry.kind == "EXTENSION":
            return entry.name in self.extensions
        if entry.kind in RELATIONS:
            return key in self.relations or key in self.types
        if entry.kind in TYPES:
            return key in self.types
        return entry.kind in ROUTINES and key in self.routines


def look(connection: Connection) -> Present:
    """Raises SourceRefused, SourceUnreachable."""
    connection.query("SET search_path = ''")

    def names(sql: str) -> frozenset[str]:
        return frozenset(row[0] or "" for row in connection.query(sql))

    def pairs(column: str, source: str) -> Named:
        found = connection.query(f"SELECT n.nspname, {column} FROM {source} WHERE {_OURS}")  # noqa: S608 - all from here
        return frozenset((row[0] or "", row[1] or "") for row in found)

    return Present(
        schemas=names("SELECT nspname FROM pg_namespace"),
        relations=pairs("relname", "pg_class x JOIN pg_namespace n ON n.oid = relnamespace"),
        types=pairs("typname", "pg_type x JOIN pg_namespace n ON n.oid = typnamespace"),
        routines=pairs(_SIGNATURE, "pg_proc x JOIN pg_namespace n ON n.oid = pronamespace"),
        extensions=names("SELECT extname FROM pg_extension"),
        available=names("SELECT name FROM pg_available_extensions"),
        roles=names("SELECT rolname FROM pg_roles"),
        own_roles=names("SELECT rolname FROM pg_roles WHERE pg_has_role(oid, 'MEMBER')"),
    )
