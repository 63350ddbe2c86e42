"""Which entries of a dump are restored: all of them, some schemas, or some tables with what belongs to them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from backstay.errors import NotFound
from backstay.sources.postgres.archive import Contents, Entry
from backstay.sources.postgres.present import RELATIONS, ROUTINES, TYPES, Present

TABLES: Final = frozenset({"TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE"})
_HOLD_ROWS: Final = RELATIONS - {"INDEX", "SEQUENCE"}  # what a part must not be restored without
_NOT_RESTORED: Final = frozenset({"ENCODING", "STDSTRINGS", "SEARCHPATH", "DATABASE", "DATABASE PROPERTIES"})
# What belongs to the objects that it depends on, and is nothing without them.
_PARTS: Final = frozenset(
    {
        "ACL",
        "CHECK CONSTRAINT",
        "COMMENT",
        "CONSTRAINT",
        "DEFAULT",
        "FK CONSTRAINT",
        "INDEX",
        "INDEX ATTACH",
        "MATERIALIZED VIEW DATA",
        "POLICY",
        "ROW SECURITY",
        "RULE",
        "SECURITY LABEL",
        "SEQUENCE",
        "SEQUENCE OWNED BY",
        "SEQUENCE SET",
        "STATISTICS",
        "STATISTICS DATA",
        "TABLE ATTACH",
        "TABLE DATA",
        "TRIGGER",
    }
)
_REMARKS: Final = frozenset({"ACL", "COMMENT", "SECURITY LABEL"})  # parts of anything, the others are of these:
_WHOLES: Final = RELATIONS | TYPES
_NEEDED: Final = frozenset({"SCHEMA", "EXTENSION", "SEQUENCE"}) | TYPES | ROUTINES  # what is brought along if missing


@dataclass(frozen=True, slots=True)
class DumpPart:
    """What is wanted of a dump; nothing named is all. Without `owners` everything belongs to who restores it."""

    schemas: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()  # `table` or `schema.table`
    owners: bool = True

    @property
    def is_whole(self) -> bool:
        return not self.schemas and not self.tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The entries to restore, in the order of the dump; `left_out` are foreign keys to tables that are not there."""

    entries: tuple[Entry, ...]
    left_out: tuple[Entry, ...]


def choose(contents: Contents, part: DumpPart, present: Present) -> Choice:
    """What is there of schemas and extensions is left as it is. Raises NotFound for names that are nowhere."""
    entries = {entry.ident: entry for entry in contents.entries if entry.kind not in _NOT_RESTORED}
    if part.is_whole:
        chosen = set(entries)
    else:
        chosen = _named(entries.values(), part)
        _complete(entries, chosen, present)
    gone = {ident for ident in chosen if _relies_on_absent(entries[ident], entries, chosen, present)}
    chosen -= gone
    gone = {ident for ident in gone if _own_table(entries[ident], entries) in chosen}
    _keep_what_is_there(entries, chosen, present)
    return Choice(
        entries=tuple(entry for entry in entries.values() if entry.ident in chosen),
        left_out=tuple(entry for entry in entries.values() if entry.ident in gone),
    )


def _named(entries: Collection[Entry], part: DumpPart) -> set[int]:
    """The entries that were asked for by name."""
    for schema in part.schemas:
        if not any(_lies_in(entry, schema) for entry in entries):
            known = sorted({entry.schema for entry in entries if entry.schema})
            raise _nowhere(f"schema {schema!r}", f"it holds {', '.join(known) or 'none'}")
    in_schemas = [e for e in entries if not part.schemas or any(_lies_in(e, schema) for schema in part.schemas)]
    if not part.tables:
        return {entry.ident for entry in in_schemas}
    found: set[int] = set()
    for table in part.tables:
        same = {e.ident for e in in_schemas if e.kind in TABLES and table in (e.name, f"{e.schema}.{e.name}")}
        if not same:
            raise _nowhere(f"table {table!r}", "no table, view or sequence there has this name")
        found |= same
    return found


def _lies_in(entry: Entry, schema: str) -> bool:
    return entry.schema == schema or (entry.kind == "SCHEMA" and entry.name == schema)


def _complete(entries: dict[int, Entry], chosen: set[int], present: Present) -> None:
    """Add partitions, what belongs to what is chosen, and what that needs and the target lacks, until all is there."""
    before = -1
    while before != len(chosen):
        before = len(chosen)
        for entry in entries.values():
            if entry.ident in chosen:
                chosen.update(_lacking(entry, entries, present))
            elif entry.kind == "TABLE ATTACH":
                chosen.update(_partition(entry, entries, chosen))
            elif _belongs(entry, entries, chosen):
                chosen.add(entry.ident)
        chosen.update(
            entry.ident
            for entry in entries.values()
            if entry.kind == "TABLE ATTACH" and chosen.issuperset(_tables(entry, entries))
        )


def _belongs(entry: Entry, entries: dict[int, Entry], chosen: set[int]) -> bool:
    """Whether an entry is a part of what is chosen, and of nothing else."""
    if entry.kind not in _PARTS or entry.kind == "TABLE ATTACH":
        return False
    wholes = (other for other in entry.dependencies if other in chosen)
    if not any(entry.kind in _REMARKS or entries[other].kind in _WHOLES for other in wholes):
        return False
    return entry.kind == "FK CONSTRAINT" or chosen.issuperset(_tables(entry, entries))


def _tables(entry: Entry, entries: dict[int, Entry]) -> list[int]:
    return [other for other in entry.dependencies if other in entries and entries[other].kind in _HOLD_ROWS]


def _partition(attach: Entry, entries: dict[int, Entry], chosen: set[int]) -> Iterator[int]:
    """The partition of a table that is chosen; the entry that attaches it has its name."""
    tables = _tables(attach, entries)
    own = [ident for ident in tables if (entries[ident].schema, entries[ident].name) == (attach.schema, attach.name)]
    if any(ident in chosen for ident in tables if ident not in own):
        yield from own


def _lacking(entry: Entry, entries: dict[int, Entry], present: Present) -> Iterator[int]:
    for other in entry.dependencies:
        needed = entries.get(other)
        if needed is not None and needed.kind in _NEEDED and not present.has(needed):
            yield other


def _relies_on_absent(entry: Entry, entries: dict[int, Entry], chosen: set[int], present: Present) -> bool:
    """Whether a foreign key leads to, or comes from, a table that is neither restored nor there."""
    if entry.kind != "FK CONSTRAINT":
        return False
    return any(ident not in chosen and not present.has(entries[ident]) for ident in _tables(entry, entries))


def _own_table(key: Entry, entries: dict[int, Entry]) -> int | None:
    """The table that has a foreign key, which is named `table key`."""
    for ident in _tables(key, entries):
        table = entries[ident]
        if table.schema == key.schema and key.name.startswith(f"{table.name} "):
            return ident
    return None


def _keep_what_is_there(entries: dict[int, Entry], chosen: set[int], present: Present) -> None:
    """Take out schemas and extensions that exist, and comments on them, which only their owner may set."""
    for ident in [i for i in chosen if entries[i].kind in ("SCHEMA", "EXTENSION") and present.has(entries[i])]:
        chosen.discard(ident)
        remarks = [e.ident for e in entries.values() if e.kind == "COMMENT" and ident in e.dependencies]
        chosen.difference_update(remarks)


def _nowhere(what: str, cause: str) -> NotFound:
    return NotFound(f"there is no {what} in the dump", cause=cause, hint="check the name; upper and lower case differ")
