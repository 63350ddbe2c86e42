"""Restore a dump of MySQL or MariaDB into a server: look first, then statement by statement."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from backstay.codec.compression import Buffer
from backstay.core.events import EventSink, ignore
from backstay.core.quantities import plural
from backstay.errors import CorruptedBackup, InvalidRequest, NotFound
from backstay.operations.restore.dumps import content, require_kind, restoring, thaw
from backstay.operations.restore.request import RestoreOptions
from backstay.repository.nodes import Node
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.trees.listings import find_node
from backstay.sources.mysql.address import parse_address
from backstay.sources.mysql.dump import ALL, FACTS, KIND, ONE, STATEMENT
from backstay.sources.mysql.restoring import renamed, run_client
from backstay.sources.mysql.server import Server, quoted

_WORD: Final = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class MysqlPlan:
    """What a restore would do: `dumped` is of what, `databases` where to, `conflicts` what lies there already.

    `objects` counts the tables and views of the dump, `bytes` is its size. `into` is the one database of a dump that
    names none, and `create` the statement that makes it, if it is not there.
    """

    snapshot: str
    target: str
    dumped: tuple[str, ...]
    databases: tuple[str, ...]
    objects: int
    bytes: int
    conflicts: tuple[str, ...]
    warnings: tuple[str, ...]
    server: Server
    into: str | None
    create: str | None
    node: Node

    @property
    def database(self) -> str:
        """The databases, for messages."""
        return ", ".join(self.databases)


def plan_mysql_restore(
    repository: Repository,
    manifest: Manifest,
    url: str,
    options: RestoreOptions,
    *,
    environ: Mapping[str, str],
    events: EventSink = ignore,
) -> MysqlPlan:
    """Look at the dump and the server, and change neither; what is frozen of the dump is thawed first.

    Raises InvalidRequest for a snapshot of something else or a target that does not fit it, SourceUnreachable,
    SourceRefused, VersionUnsupported.
    """
    address = parse_address(url)
    node, facts, is_one = _stored(repository, manifest, options, events)
    dumped = facts["databases"]
    if is_one:
        into: str | None = address.database or dumped[0]["name"]
        databases = (address.database or dumped[0]["name"],)
    elif address.database:
        raise InvalidRequest(
            f"snapshot {manifest.id} holds {plural(len(dumped), 'database')} under their own names",
            cause=f"the address names the database {address.database!r}",
            hint="leave it out: mysql://user@host:port/",
        )
    else:
        into, databases = None, tuple(database["name"] for database in dumped)
    server = Server(address, environ)
    missing = into is not None and not server.has(into)
    return MysqlPlan(
        snapshot=manifest.id,
        target=server.place,
        dumped=tuple(database["name"] for database in dumped),
        databases=databases,
        objects=sum(database["tables"] for database in dumped),
        bytes=node.size,
        conflicts=tuple(server.objects(databases)),
        warnings=tuple(_warnings(facts, server)),
        server=server,
        into=into,
        create=_creation(into, dumped[0]) if into is not None and missing else None,
        node=node,
    )


def run_mysql_restore(
    repository: Repository,
    manifest: Manifest,
    url: str,
    options: RestoreOptions,
    *,
    environ: Mapping[str, str],
    events: EventSink = ignore,
) -> MysqlPlan:
    """Restore; what was done is what was planned. Raises RestoreConflict, RestoreFailed, and what planning raises.

    A crash or a failing statement leaves what was restored until then, table by table: the next run finds it and
    refuses, or replaces it with `overwrite`.
    """
    plan = plan_mysql_restore(repository, manifest, url, options, environ=environ, events=events)
    overwriting = "replaces what the dump holds"
    with restoring(plan, options, events, place=plan.database, overwriting=overwriting) as progress:
        if plan.create is not None:
            plan.server.query(plan.create)
        dump: Iterable[Buffer] = content(repository, plan.node)
        if plan.into is not None and plan.into != plan.dumped[0]:
            dump = renamed(dump, plan.dumped[0], plan.into)
        run_client(plan.server, plan.into, dump, progress=progress)
    return plan


def _stored(
    repository: Repository, manifest: Manifest, options: RestoreOptions, events: EventSink
) -> tuple[Node, dict[str, Any], bool]:
    """The dump of a snapshot, what is told of it, and whether it is of one database and names none."""
    require_kind(manifest, KIND, "MySQL or MariaDB")
    place = manifest.paths[0] + b"/"
    told = _found(repository, manifest, place + FACTS)
    dumps = [node for name in (ONE, ALL) if (node := _found(repository, manifest, place + name)) is not None]
    if told is None or not dumps:
        raise CorruptedBackup(f"snapshot {manifest.id} lacks its dump", cause="a repair may have left it out")
    node = dumps[0]
    thaw(repository, [node, told], options, events)
    facts = json.loads(b"".join(map(bytes, content(repository, told))))
    return node, facts, node.name == ONE


def _found(repository: Repository, manifest: Manifest, path: bytes) -> Node | None:
    try:
        return find_node(manifest.root, path, repository.reader)
    except NotFound:
        return None


def _creation(name: str, dumped: Mapping[str, str]) -> str:
    """The statement that makes a database as the dumped one was."""
    charset, collation = dumped["character_set"], dumped["collation"]
    statement = f"CREATE DATABASE {quoted(name)}"
    if _WORD.fullmatch(charset) and _WORD.fullmatch(collation):
        statement += f" CHARACTER SET {charset} COLLATE {collation}"
    return statement


def _warnings(facts: Mapping[str, Any], server: Server) -> list[str]:
    found = []
    if ("mariadb" in facts["server_version"].lower()) != server.is_mariadb:
        found.append(f"the dump is from {facts['server_version']}, and {server.version} may not understand all of it")
    packet = int(server.facts.get("max_allowed_packet") or 0)
    if packet < STATEMENT + (1 << 20):
        found.append(f"max_allowed_packet of the server is {packet >> 20} MiB, the dump may have statements of 8 MiB")
    return found
