"""Restore a dump into a database."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backstay.control.manager.requests import RestoreRequest, Surroundings, room_at
from backstay.control.manager.results import PlannedPart, RestoredPart
from backstay.control.manager.targets import DatabaseTarget, told_target
from backstay.core.names import printable
from backstay.errors import InvalidRequest, RestoreFailed
from backstay.operations.restore.mysql_dump import MysqlPlan, plan_mysql_restore, run_mysql_restore
from backstay.operations.restore.postgres_dump import DumpPart, DumpPlan, is_dump, plan_dump_restore, run_dump_restore
from backstay.operations.restore.request import Conflict, RestoreOptions
from backstay.operations.restore.sqlite import restore_sqlite
from backstay.repository.snapshots.store import Manifest
from backstay.sources.postgres.present import CREATED
from backstay.sources.sqlite.database import path_of


def preview(around: Surroundings, manifest: Manifest, target: DatabaseTarget, request: RestoreRequest) -> PlannedPart:
    """What a restore would do. Raises InvalidRequest, SourceUnreachable, SourceRefused."""
    options = _options(request)
    if _is_sqlite(target):
        return _preview_sqlite(around, manifest, target)
    plan = _plan(around, manifest, target, options)
    return PlannedPart(
        backup_id=manifest.id,
        kind="database",
        target=told_target(target),
        objects=plan.objects,
        bytes=plan.bytes,
        conflicts=plan.conflicts,
        conflict_count=len(plan.conflicts),
        warnings=plan.warnings,
    )


def run(around: Surroundings, manifest: Manifest, target: DatabaseTarget, request: RestoreRequest) -> RestoredPart:
    """Restore. Raises RestoreConflict before anything is written, RestoreFailed, and what `preview` does."""
    options = _options(request)
    done = _run_sqlite(around, manifest, target, options) if _is_sqlite(target) else None
    done = done or _run_dump(around, manifest, target, options)
    verified = present(around, manifest, target) if request.verify else 0
    if request.verify and verified < done.findable:
        raise RestoreFailed(
            f"{done.findable - verified} of {done.findable} objects are missing in {told_target(target)}",
            cause="they are not there after the dump was restored",
        )
    return RestoredPart(
        backup_id=manifest.id,
        kind="database",
        target=told_target(target),
        schemas=tuple(target.schemas),
        tables=tuple(target.tables),
        objects=done.objects,
        findable=done.findable,
        bytes=done.bytes,
        unchanged=done.unchanged,
        verified=verified,
        problems=done.warnings,
    )


def present(around: Surroundings, manifest: Manifest, target: DatabaseTarget) -> int:
    """How many of the objects of a dump a database has. Raises what looking at it raises."""
    options = RestoreOptions(conflict="overwrite")
    if _is_sqlite(target):
        path = path_of(target.connection)
        return int(restore_sqlite(around.repository, manifest, path, options, dry_run=True) is None)
    return len(_plan(around, manifest, target, options).conflicts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """`findable` objects can be looked for afterwards."""

    objects: int
    findable: int
    bytes: int
    unchanged: int = 0
    warnings: tuple[str, ...] = ()


def _is_sqlite(target: DatabaseTarget) -> bool:
    return target.connection.startswith("sqlite:")


def _plan(
    around: Surroundings, manifest: Manifest, target: DatabaseTarget, options: RestoreOptions
) -> DumpPlan | MysqlPlan:
    part, address = _part(target), target.connection
    if is_dump(manifest):
        return plan_dump_restore(
            around.repository, manifest, address, part, options, environ=around.environ, events=around.events
        )
    _refuse_parts_of_mysql(part)
    return plan_mysql_restore(
        around.repository, manifest, address, options, environ=around.environ, events=around.events
    )


def _run_dump(around: Surroundings, manifest: Manifest, target: DatabaseTarget, options: RestoreOptions) -> _Done:
    part, address = _part(target), target.connection
    if is_dump(manifest):
        plan = run_dump_restore(
            around.repository, manifest, address, part, options, environ=around.environ, events=around.events
        )
        findable = sum(entry.kind in CREATED for entry in plan.entries)
        return _Done(objects=plan.objects, findable=findable, bytes=plan.bytes, warnings=plan.warnings)
    _refuse_parts_of_mysql(part)
    mysql = run_mysql_restore(
        around.repository, manifest, address, options, environ=around.environ, events=around.events
    )
    return _Done(objects=mysql.objects, findable=mysql.objects, bytes=mysql.bytes, warnings=mysql.warnings)


def _run_sqlite(around: Surroundings, manifest: Manifest, target: DatabaseTarget, options: RestoreOptions) -> _Done:
    path = path_of(target.connection)
    node = restore_sqlite(around.repository, manifest, path, options, events=around.events)
    return _Done(objects=1, findable=1, bytes=0 if node is None else node.size, unchanged=int(node is None))


def _preview_sqlite(around: Surroundings, manifest: Manifest, target: DatabaseTarget) -> PlannedPart:
    path = path_of(target.connection)
    node = restore_sqlite(around.repository, manifest, path, RestoreOptions(conflict="overwrite"), dry_run=True)
    conflicts = (printable(path),) if node is not None and os.path.lexists(path) else ()
    return PlannedPart(
        backup_id=manifest.id,
        kind="database",
        target=told_target(target),
        objects=1,
        bytes=0 if node is None else node.size,
        unchanged=int(node is None),
        conflicts=conflicts,
        conflict_count=len(conflicts),
        room=room_at(Path(os.fsdecode(path))),
    )


def _options(request: RestoreRequest) -> RestoreOptions:
    """Raises InvalidRequest for what only files have."""
    fitting: Sequence[Conflict] = ("fail", "overwrite")
    given = {
        "include and exclude": bool(request.include or request.exclude),
        "delete": request.delete,
        f"conflict {request.conflict!r}": request.conflict not in fitting,
    }
    for name, is_given in given.items():
        if is_given:
            raise InvalidRequest(
                f"{name} does not go with a database",
                cause="it chooses among files",
                hint="leave it out; schemas and tables choose what is restored of a dump",
            )
    return RestoreOptions(conflict=request.conflict, parallel=request.parallel)


def _part(target: DatabaseTarget) -> DumpPart:
    return DumpPart(schemas=tuple(target.schemas), tables=tuple(target.tables), owners=target.owners)


def _refuse_parts_of_mysql(part: DumpPart) -> None:
    if part != DumpPart():
        raise InvalidRequest(
            "a dump of MySQL is restored as a whole",
            cause="schemas, tables or owners are chosen",
            hint="restore it into an empty database, and copy from there what is wanted",
        )
