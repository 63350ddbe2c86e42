"""`copy`, and `repair packs --from-copy`: further copies of a repository, and what they are for."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backstay.cli import choosing, jsonout, secrets
from backstay.cli.context import Context, context_of
from backstay.cli.options import argument, flag, option
from backstay.cli.tiers import DAYS_HELP, NO_WAIT_HELP
from backstay.core.quantities import format_size, plural
from backstay.errors import CorruptedBackup, InvalidRequest

if TYPE_CHECKING:
    from backstay.operations.copies.result import CopyResult
    from backstay.operations.repair.run import RepairResult
    from backstay.repository.repository import Repository
    from backstay.storage.backend import StorageBackend


def copy(
    ctx: typer.Context,
    snapshots: Annotated[list[str] | None, argument("ID", "Only these snapshots; into another repository.")] = None,
    to: Annotated[str, option("REPO", "Where to: an empty store, a copy made before, or another repository.")] = "",
    to_password_file: Annotated[
        Path | None,
        option(
            "FILE",
            "The password or key file of another repository; else BACKSTAY_TO_PASSWORD, else the same as here.",
        ),
    ] = None,
    no_wait: Annotated[bool, flag(NO_WAIT_HELP, "--no-wait")] = False,
    thaw_days: Annotated[int, option("N", DAYS_HELP, min=1, max=365, show_default=True)] = 7,
) -> int:
    """Copy a whole repository bit by bit, or snapshots into another repository."""
    from backstay.operations.copies.mirror import copy_objects
    from backstay.operations.copies.transfer import copy_snapshots

    context = context_of(ctx)
    if not to:
        raise InvalidRequest("it is not said where to copy to", hint="give --to REPO")
    target = context.backend(to, create=True, grows=True)  # closed by whoever gets it
    with context.open() as repository:
        if _becomes_mirror(repository, target, snapshots or []):
            with target, context.watching() as events:
                result = copy_objects(repository, target, days=thaw_days, wait=not no_wait, events=events)
        else:
            chosen = [choosing.one(context, repository, text) for text in snapshots or []]
            with _other(context, target, to, to_password_file) as there, context.watching() as events:
                result = copy_snapshots(
                    repository,
                    there,
                    chosen or repository.snapshots.shown(),
                    days=thaw_days,
                    wait=not no_wait,
                    events=events,
                )
    context.result(jsonout.plain(result), lambda: _show(context, result, to))
    return CorruptedBackup.exit_status if result.findings else 0


def _becomes_mirror(repository: Repository, target: StorageBackend, snapshots: list[str]) -> bool:
    from backstay.operations.copies.mirror import can_be_mirror
    from backstay.repository.checking.genuine import header_of

    mirror = can_be_mirror(repository, target)
    if mirror and snapshots:
        raise InvalidRequest(
            "single snapshots can be copied into another repository only",
            cause=f"{target.url} is empty, or a copy of the whole repository",
            hint="leave the ids out, or create another repository there first with `backstay init`",
        )
    if not mirror and header_of(target) is None:
        raise InvalidRequest(
            f"{target.url} is no place to copy to",
            cause="it holds objects, but no repository",
            hint="name an empty one",
        )
    return mirror


def _other(context: Context, target: StorageBackend, address: str, password_file: Path | None) -> Repository:
    """The other repository that lies there."""
    from backstay.repository.repository import Repository

    secret = secrets.other_secret(
        context.environ, password_file=password_file, same=context.password_file, address=address
    )
    return Repository.open(target, secret, cache=context.cache(), environment=context.world())


def _show(context: Context, result: CopyResult, to: str) -> None:
    if result.kind == "mirror":
        context.say(f"{plural(result.objects, 'object')} with {format_size(result.bytes)} sent to {to}")
        if result.removed:
            context.say(f"{plural(result.removed, 'object')} removed there that the repository had deleted")
        if not result.findings:
            context.say("it has every object of the repository, by name and size")
            context.say(f"`backstay -r {shlex.quote(to)} verify --read-data` reads what lies there")
    else:
        for old, new in result.copied:
            context.say(f"snapshot {old} is {new} there")
        if result.already:
            context.say(f"{plural(len(result.already), 'snapshot was', 'snapshots were')} there already")
        if result.wal_files:
            context.say(f"{plural(result.wal_files, 'file')} of logs went with backups of databases")
        context.say(f"{format_size(result.bytes)} sent to {to}")


def heal(context: Context, copy: str, packs: list[str] | None) -> RepairResult:
    """What `repair packs --from-copy` does."""
    from backstay.operations.repair.heal import heal_from_copy
    from backstay.storage.mirrored import Mirrored

    damaged = context.backend(context.location().address, create=True)
    whole = context.backend(copy)
    both = Mirrored([damaged, whole], quorum=1, warn=context.warn)
    with context.opened_on(both) as repository, context.watching() as events:
        return heal_from_copy(repository, damaged, whole, packs, events=events)
