"""`export` and `import`: snapshots on a removable medium, and back."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backstay.cli import choosing, jsonout
from backstay.cli.context import Context, context_of
from backstay.cli.options import argument, flag, option
from backstay.cli.tiers import DAYS_HELP, NO_WAIT_HELP
from backstay.core.quantities import format_size, plural
from backstay.errors import CorruptedBackup

if TYPE_CHECKING:
    from backstay.operations.copies.export import ExportResult, ImportResult


def export(
    ctx: typer.Context,
    to: Annotated[str, option("DIR", "Where to: an empty directory, or one with an earlier export.")],
    snapshots: Annotated[list[str] | None, argument("ID", "Only these snapshots; else all.")] = None,
    no_wait: Annotated[bool, flag(NO_WAIT_HELP, "--no-wait")] = False,
    thaw_days: Annotated[int, option("N", DAYS_HELP, min=1, max=365, show_default=True)] = 7,
) -> int:
    """Put snapshots on a removable medium, as a small repository with the same keys."""
    from backstay.operations.copies.export import export_snapshots
    from backstay.storage.local import LocalStorage
    from backstay.storage.registry import directory

    context = context_of(ctx)
    place = directory(to)
    with context.open() as repository, LocalStorage(place) as target, context.watching() as events:
        chosen = [choosing.one(context, repository, text) for text in snapshots or ()] or repository.snapshots.shown()
        result = export_snapshots(repository, target, chosen, days=thaw_days, wait=not no_wait, events=events)
    context.result(jsonout.plain(result), lambda: _show_export(context, result, place))
    return CorruptedBackup.exit_status if result.findings else 0


def import_(
    ctx: typer.Context,
    from_: Annotated[str, option("DIR", "A directory with exported snapshots.", "--from")],
    snapshots: Annotated[list[str] | None, argument("ID", "Only these snapshots of it; else all.")] = None,
) -> int:
    """Bring exported snapshots back into the repository that they are from."""
    from backstay.operations.copies.export import import_snapshots
    from backstay.storage.local import LocalStorage
    from backstay.storage.registry import directory

    context = context_of(ctx)
    place = directory(from_)
    with (
        context.open() as repository,
        LocalStorage(place, create=False) as medium,
        context.watching() as events,
    ):
        there = repository.in_store(medium)
        wanted = [choosing.one(context, there, text).id for text in snapshots] if snapshots else None
        result = import_snapshots(repository, medium, wanted, events=events)
    context.result(jsonout.plain(result), lambda: _show_import(context, result))
    return CorruptedBackup.exit_status if result.findings else 0


def _show_export(context: Context, result: ExportResult, to: Path) -> None:
    sent = f"{plural(len(result.exported), 'snapshot')} with {format_size(result.bytes)} exported to {to}"
    context.say(sent if result.exported else f"all snapshots are at {to} already")
    if result.wal_objects:
        context.say(f"{plural(result.wal_objects, 'object')} of logs went with backups of databases")
    if result.exported and result.already:
        context.say(f"{plural(len(result.already), 'snapshot was', 'snapshots were')} there already")
    context.say(f"`backstay -r {shlex.quote(str(to))} verify --read-data` checks it with the same password")


def _show_import(context: Context, result: ImportResult) -> None:
    for old, new in result.imported:
        context.say(f"snapshot {old} is {new} here")
    if result.already:
        context.say(f"{plural(len(result.already), 'snapshot was', 'snapshots were')} here already")
    if result.wal_files:
        context.say(f"{plural(result.wal_files, 'file')} of logs came with backups of databases")
    if not result.imported and not result.wal_files:
        context.say("there was nothing to import")
