"""`restore --to` the address of a database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from backstay.cli import database
from backstay.cli.context import Context
from backstay.core.names import printable
from backstay.core.quantities import format_size, plural
from backstay.errors import InvalidRequest, RestoreConflict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from backstay.operations.restore.mysql_dump import MysqlPlan
    from backstay.operations.restore.postgres_dump import DumpPart, DumpPlan
    from backstay.operations.restore.run import RestoreOptions
    from backstay.repository.repository import Repository
    from backstay.repository.snapshots.store import Manifest

_SHOWN = 20


def refuse_what_files_have(*, path: bytes | None, chosen: bool, delete: bool, verify: bool, conflict: str) -> None:
    """Raises InvalidRequest for options that only a restore of files has."""
    given = {
        "ID:PATH": path is not None,
        "--include and --exclude": chosen,
        "--delete": delete,
        "--verify": verify,
        f"--conflict {conflict}": conflict not in ("fail", "overwrite"),
    }
    for name, is_given in given.items():
        if is_given:
            raise InvalidRequest(
                f"{name} does not go with a restore into a database",
                cause="it chooses among files or compares them",
                hint="leave it out; --schema and --table choose what is restored of a dump",
            )


def part_of(schemas: Sequence[str] | None, tables: Sequence[str] | None, *, no_owner: bool) -> DumpPart:
    """What is wanted of a dump, as the options of the command name it."""
    from backstay.operations.restore.postgres_dump import DumpPart

    return DumpPart(schemas=tuple(schemas or ()), tables=tuple(tables or ()), owners=not no_owner)


def restore(
    context: Context,
    repository: Repository,
    manifest: Manifest,
    address: str,
    part: DumpPart,
    options: RestoreOptions,
    *,
    dry_run: bool,
) -> int:
    """Restore into a database; the exit status."""
    if address.startswith("sqlite:"):
        return _restore_sqlite(context, repository, manifest, address, part, options, dry_run=dry_run)
    if database.is_mysql(address):
        return _restore_mysql(context, repository, manifest, address, part, options, dry_run=dry_run)
    from backstay.operations.restore.postgres_dump import plan_dump_restore, run_dump_restore

    act = plan_dump_restore if dry_run else run_dump_restore
    with context.watching() as events:
        plan = act(repository, manifest, address, part, options, environ=context.environ, events=events)
    return _told(context, plan, options, dry_run=dry_run)


def _restore_mysql(
    context: Context,
    repository: Repository,
    manifest: Manifest,
    address: str,
    part: DumpPart,
    options: RestoreOptions,
    *,
    dry_run: bool,
) -> int:
    from backstay.operations.restore.mysql_dump import plan_mysql_restore, run_mysql_restore

    if not part.is_whole or not part.owners:
        raise InvalidRequest(
            "a dump of MySQL is restored as a whole",
            cause="--schema, --table or --no-owner is given",
            hint="restore it into an empty database, and copy from there what is wanted",
        )
    act = plan_mysql_restore if dry_run else run_mysql_restore
    with context.watching() as events:
        plan = act(repository, manifest, address, options, environ=context.environ, events=events)
    return _told(context, plan, options, dry_run=dry_run)


def _told(context: Context, plan: DumpPlan | MysqlPlan, options: RestoreOptions, *, dry_run: bool) -> int:
    """Tell what was done or would be; the exit status."""
    context.result(_document(plan, dry_run=dry_run), lambda: _show(context, plan, dry_run=dry_run))
    refused = dry_run and bool(plan.conflicts) and options.conflict == "fail"
    return RestoreConflict.exit_status if refused else 0


def _restore_sqlite(
    context: Context,
    repository: Repository,
    manifest: Manifest,
    address: str,
    part: DumpPart,
    options: RestoreOptions,
    *,
    dry_run: bool,
) -> int:
    from backstay.operations.restore.sqlite import restore_sqlite
    from backstay.sources.sqlite.database import path_of

    if not part.is_whole or not part.owners:
        raise InvalidRequest("SQLite has no schemas or owners", cause="--schema, --table or --no-owner is given")
    path = path_of(address)
    with context.watching() as events:
        node = restore_sqlite(repository, manifest, path, options, dry_run=dry_run, events=events)
    document = {
        "dry_run": dry_run,
        "snapshot": manifest.id,
        "target": Path(os.fsdecode(path)),
        "files": 0 if node is None else 1,
        "bytes": 0 if node is None else node.size,
        "unchanged": int(node is None),
    }

    def show() -> None:
        if node is None:
            context.say(f"{printable(path)} is there already; nothing was written")
        else:
            done = "would be restored" if dry_run else "restored"
            context.say(
                f"{done}: a database of {format_size(node.size)} from snapshot {manifest.id} as {printable(path)}"
            )

    context.result(document, show)
    return 0


def _document(plan: DumpPlan | MysqlPlan, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "snapshot": plan.snapshot,
        "target": plan.target,
        "database": plan.database,
        "objects": plan.objects,
        "bytes": plan.bytes,
        "conflicts": len(plan.conflicts),
        "conflict_names": list(plan.conflicts),
        "warnings": list(plan.warnings),
    }


def _show(context: Context, plan: DumpPlan | MysqlPlan, *, dry_run: bool) -> None:
    done = "would be restored" if dry_run else "restored"
    context.say(
        f"{done}: {plural(plan.objects, 'object')} of snapshot {plan.snapshot} into {plan.database} of {plan.target}"
    )
    if not dry_run:
        return
    for warning in plan.warnings:
        context.warn(warning)
    if plan.conflicts:
        context.say(f"{plural(len(plan.conflicts), 'object exists', 'objects exist')} there already:")
        for name in plan.conflicts[:_SHOWN]:
            context.say(f"  {name}")
    context.say(f"the dump has {format_size(plan.bytes)}; nothing was written")
