"""Restore a dump of a PostgreSQL database into a server: look first, then all or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backstay.core.events import EventSink, ignore
from backstay.errors import InvalidRequest, NotFound
from backstay.operations.restore.dumps import content, few, require_kind, restoring, thaw
from backstay.operations.restore.request import RestoreOptions
from backstay.repository.nodes import Node
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.trees.listings import find_node
from backstay.sources.postgres.archive import Entry, read_contents
from backstay.sources.postgres.choice import Choice, DumpPart, choose
from backstay.sources.postgres.connection import Connection
from backstay.sources.postgres.dump import DUMP, GLOBALS, KIND
from backstay.sources.postgres.login import Login, login
from backstay.sources.postgres.present import CREATED, Present, look
from backstay.sources.postgres.programs import Programs, programs_for
from backstay.sources.postgres.restoring import run_pg_restore
from backstay.sources.postgres.roles import grantees, owners

__all__ = ["DumpPart", "DumpPlan", "is_dump", "plan_dump_restore", "run_dump_restore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpPlan:
    """What a restore would do; `conflicts` are existing objects that the dump would create, `warnings` worth knowing.

    `bytes` is the size of the dump, which is read from its beginning as far as it takes.
    """

    snapshot: str
    target: str
    database: str
    entries: tuple[Entry, ...]
    objects: int
    bytes: int
    conflicts: tuple[str, ...]
    drops: tuple[str, ...]  # commands that would remove these
    warnings: tuple[str, ...]
    server: int
    programs: Programs
    access: Login
    node: Node


def is_dump(manifest: Manifest) -> bool:
    """Whether a snapshot holds a dump of a PostgreSQL database."""
    return manifest.source.startswith(f"{KIND}:")


def plan_dump_restore(
    repository: Repository,
    manifest: Manifest,
    url: str,
    part: DumpPart,
    options: RestoreOptions,
    *,
    environ: Mapping[str, str],
    events: EventSink = ignore,
) -> DumpPlan:
    """Look at the dump and the database, and change neither; what is frozen of the dump is thawed first.

    Raises InvalidRequest for a snapshot of something else, NotFound for names, roles and extensions that are not there,
    SourceUnreachable, SourceRefused, VersionUnsupported.
    """
    require_kind(manifest, KIND, "a PostgreSQL database")
    node = find_node(manifest.root, manifest.paths[0] + b"/" + DUMP, repository.reader)
    assert node is not None
    thaw(repository, [node], options, events)
    contents = read_contents(content(repository, node))
    with Connection(url) as connection:
        server, target = connection.version, connection.place
        database, present = connection.value("SELECT current_database()"), look(connection)
    choice = choose(contents, part, present)
    _require_extensions(choice, present, target)
    if part.owners:
        _require_roles(choice, present, target, manifest)
    dumped = _major(contents.server)
    return DumpPlan(
        snapshot=manifest.id,
        target=target,
        database=database,
        entries=choice.entries,
        objects=sum(entry.kind in CREATED or entry.kind in ("SCHEMA", "EXTENSION") for entry in choice.entries),
        bytes=node.size,
        conflicts=tuple(_told(e) for e in choice.entries if e.kind in CREATED and present.has(e)),
        drops=tuple(present.drops(choice.entries)),
        warnings=tuple(_warnings(choice, dumped=dumped, server=server)),
        server=server,
        programs=programs_for(_major(contents.program), environ, purpose=f"restoring a dump of PostgreSQL {dumped}"),
        access=login(url, environ, database=database),
        node=node,
    )


def run_dump_restore(
    repository: Repository,
    manifest: Manifest,
    url: str,
    part: DumpPart,
    options: RestoreOptions,
    *,
    environ: Mapping[str, str],
    events: EventSink = ignore,
) -> DumpPlan:
    """Restore; what was done is what was planned. Raises RestoreConflict, RestoreFailed, and what planning raises.

    One transaction: a crash, of this program or of the server, leaves the database as it was.
    """
    plan = plan_dump_restore(repository, manifest, url, part, options, environ=environ, events=events)
    place = f"the database {plan.database!r}"
    with restoring(plan, options, events, place=place, overwriting="drops them first") as progress:
        run_pg_restore(
            plan.programs,
            plan.access,
            plan.entries,
            content(repository, plan.node),
            server=plan.server,
            owners=part.owners,
            drops=plan.drops if options.conflict == "overwrite" else None,
            progress=progress,
        )
    return plan


def _major(version: str) -> int:
    """The major version in `18.1` or `17beta2 (Debian …)`."""
    digits = ""
    for sign in version.strip():
        if not sign.isdecimal():
            break
        digits += sign
    return int(digits or 0)


def _warnings(choice: Choice, *, dumped: int, server: int) -> list[str]:
    found = [
        f"the foreign key {entry.name} is left out: a table that it connects is neither restored nor there"
        for entry in choice.left_out
    ]
    if server < dumped:
        found.append(f"the dump is from PostgreSQL {dumped}, and PostgreSQL {server} may not understand all of it")
    return found


def _require_extensions(choice: Choice, present: Present, target: str) -> None:
    wanted = sorted(entry.name for entry in choice.entries if entry.kind == "EXTENSION")
    missing = [name for name in wanted if name not in present.available]
    if missing:
        raise NotFound(
            f"{target} lacks extensions that the dump needs, nothing was restored",
            cause=", ".join(missing),
            hint="install the packages that bring them on that server",
        )


def _require_roles(choice: Choice, present: Present, target: str, manifest: Manifest) -> None:
    owning = owners(choice.entries)
    missing = sorted((owning | grantees(choice.entries)) - present.roles)
    if missing:
        place = (manifest.paths[0] + b"/" + GLOBALS).decode("utf-8", "backslashreplace")
        raise NotFound(
            f"{target} lacks roles that the dump names, nothing was restored",
            cause=few(missing),
            hint=f"create them (`backstay cat {manifest.id} {place}` has the commands), or give --no-owner",
        )
    foreign = sorted(owning - present.own_roles)
    if foreign:
        raise InvalidRequest(
            "the role may not give what it restores to its owners, nothing was restored",
            cause=f"it is no member of {few(foreign)}",
            hint="restore as a superuser or a member of these roles, or give --no-owner",
        )


def _told(entry: Entry) -> str:
    return f"{entry.kind.lower()} {entry.schema}.{entry.name}"
