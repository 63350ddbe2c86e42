"""`graph attest|validator|delete|gc|export|import`: who vouches for graphs, what goes, and plain files."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Annotated

import typer

from backstay.cli.context import context_of
from backstay.cli.graph import summary_of
from backstay.cli.graph_choice import GraphSnapshotId, PolicyFile, managing, one_snapshot
from backstay.cli.options import argument, flag, option
from backstay.cli.render import out
from backstay.control.opening.key_files import write_secret_file
from backstay.core.quantities import plural
from backstay.errors import InvalidRequest

_MAX_KEY_FILE = 64 << 10  # bytes


def graph_validator(
    ctx: typer.Context,
    name: Annotated[str, argument("NAME", "What the policy calls the validator.")],
    key_file: Annotated[Path, option("FILE", "Where the private key goes: a new file that only you can read.")],
) -> int:
    """Make a validator's key; what is printed goes into a quorum policy."""
    from backstay.trust.validators import Validator

    context = context_of(ctx)
    made = Validator.generate(name)
    write_secret_file(key_file, made.printed())
    known = made.public

    def show() -> None:
        out(f"- name: {known.name}")
        out(f"  public_key: {known.public_key}")

    context.result({"name": known.name, "public_key": known.public_key, "key_id": known.key_id}, show)
    return 0


def graph_attest(
    ctx: typer.Context,
    snapshot: GraphSnapshotId,
    key_file: Annotated[Path, option("FILE", "The validator's private key.")],
    policy: PolicyFile = None,
) -> int:
    """Say that a snapshot is good, signed with a validator's key; look at it first with `graph verify`."""
    from backstay.trust.validators import Validator

    context = context_of(ctx)
    validator = Validator.parse(_private(key_file))
    with managing(context, policy) as manager:
        told = manager.attest(one_snapshot(context, manager, snapshot).id, validator)

    def show() -> None:
        context.say(f"{validator.name} attests snapshot {told.id}")
        if told.state == "pending" and told.missing:
            context.say(f"it is pending, not attested yet by {', '.join(told.missing)}")
        elif told.validated_by:
            context.say(f"it is accepted: {', '.join(told.validated_by)} attested it")

    context.result(summary_of(told), show)
    return 0


def _private(path: Path) -> str:
    """The text of a private key file. Raises InvalidRequest, also when others can read it."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            data = file.read(_MAX_KEY_FILE)
    except OSError as error:
        raise InvalidRequest(f"cannot read the key file {path}", cause=error.strerror or "") from error
    if mode & 0o077:
        raise InvalidRequest(
            f"others can read the key file {path}",
            cause=f"its mode is {mode:04o}",
            hint=f"chmod 600 {path}; if somebody may have read it, make a new key",
        )
    return data.decode("utf-8", "replace")


def graph_delete(
    ctx: typer.Context,
    snapshots: Annotated[list[str], argument("ID", "Snapshots of graphs to delete.")],
    reason: Annotated[str, option("TEXT", "Why; it is kept until the values are collected.")] = "",
) -> int:
    """Delete snapshots of graphs; `graph gc` removes the values that only they name."""
    context = context_of(ctx)
    with managing(context, None) as manager:
        chosen = {told.id: told for told in (one_snapshot(context, manager, text) for text in snapshots)}
        manager.repository.snapshots.holds.require_free(chosen)  # before the first of them goes
        for ident in chosen:
            manager.delete_snapshot(ident, reason)

    def show() -> None:
        for told in chosen.values():
            context.say(f"deleted snapshot {told.id} of graph {told.name}")
        context.say("`backstay graph gc` removes their values")

    context.result({"deleted": list(chosen)}, show)
    return 0


def graph_gc(
    ctx: typer.Context,
    keep_last: Annotated[int | None, option("N", "Of each graph only the newest N accepted ones stay.", min=1)] = None,
    days: Annotated[float | None, option("DAYS", "Older ones go too, but never the one in force.", min=0.0001)] = None,
    unreferenced: Annotated[
        bool, flag("Values go that no snapshot names, whoever stored them.", "--unreferenced")
    ] = False,
    dry_run: Annotated[bool, flag("Only tell what would go.", "--dry-run", "-n")] = False,
    policy: PolicyFile = None,
) -> int:
    """Remove the values that deleted snapshots leave; `backstay gc` then frees the space."""
    context = context_of(ctx)
    with context.watching() as events, managing(context, policy, events=events) as manager:
        plan = manager.plan_collection(max_snapshots=keep_last, ttl_days=days, unreferenced=unreferenced)
        gone = list(plan.values) if dry_run else manager.execute_collection(plan)
    snapshots = [*plan.deleted, *plan.expired]

    def show() -> None:
        verb = "would be removed" if dry_run else "removed"
        context.say(f"{plural(len(snapshots), 'snapshot')} and {plural(len(gone), 'value')} {verb}")
        if gone and not dry_run:
            context.say("`backstay gc` frees the space")

    context.result({"dry_run": dry_run, "snapshots": snapshots, "values": gone}, show)
    return 0


def graph_export(
    ctx: typer.Context,
    snapshot: GraphSnapshotId,
    directory: Annotated[Path, argument("DIR", "Where `blobs` and `metadata/snapshots.json` go.")],
    policy: PolicyFile = None,
) -> int:
    """Write a snapshot as plain files, beside others that are there."""
    context = context_of(ctx)
    with managing(context, policy) as manager:
        told = one_snapshot(context, manager, snapshot)
        manager.export_layout(told.id, directory)
    context.result(
        {"snapshot": told.id, "directory": directory}, lambda: context.say(f"wrote snapshot {told.id} to {directory}")
    )
    return 0


def graph_import(
    ctx: typer.Context,
    directory: Annotated[Path, argument("DIR", "A directory with `blobs` and `metadata/snapshots.json`.")],
    policy: PolicyFile = None,
) -> int:
    """Make snapshots of those in plain files, but for those that were imported before."""
    from backstay.cli.graph_choice import quorum_of
    from backstay.graph.manager import GraphBackupManager

    context = context_of(ctx)
    quorum = quorum_of(context, policy)
    with context.watching() as events, context.open(grows=True) as repository:
        before = {told.id for told in GraphBackupManager(repository).list_manifests()}
        manager = GraphBackupManager.import_layout(repository, directory, quorum=quorum, events=events)
        made = [manifest.id for manifest in manager.list_manifests() if manifest.id not in before]
    context.result({"imported": made}, lambda: context.say(f"imported {plural(len(made), 'snapshot')}"))
    return 0
