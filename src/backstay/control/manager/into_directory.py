"""Restore files into a directory."""

from __future__ import annotations

import os
from pathlib import Path

from backstay.control.manager.requests import RestoreRequest, Surroundings, room_at
from backstay.control.manager.results import PlannedPart, RestoredPart
from backstay.control.manager.targets import DirectoryTarget, told_target
from backstay.core.environment import expanded, own_places
from backstay.core.names import printable
from backstay.errors import InvalidRequest
from backstay.operations.restore.in_place import original_place as place_of
from backstay.operations.restore.in_place import restore_in_place
from backstay.operations.restore.run import plan_restore, run_restore
from backstay.repository.repository import Repository
from backstay.repository.snapshots.selectors import stored_path
from backstay.repository.snapshots.store import Manifest

ON_NO_DISK = ("postgresql", "mysql", "command")


def preview(around: Surroundings, manifest: Manifest, target: DirectoryTarget, request: RestoreRequest) -> PlannedPart:
    """What a restore would do. Raises NotFound, InvalidRequest, RestoreFailed."""
    place = expanded(Path(target.destination)).absolute()
    plan = plan_restore(
        around.repository, manifest, place, request.options(target.source, spared=own_places(around.environ))
    )
    cold = () if plan.cold is None else (f"{plan.cold} must be thawed or attached before",)
    return PlannedPart(
        backup_id=manifest.id,
        kind="files",
        target=told_target(target),
        files=plan.files,
        dirs=plan.dirs,
        bytes=plan.bytes,
        unchanged=plan.unchanged,
        conflicts=tuple(plan.conflicts),
        conflict_count=plan.conflict_count,
        deletions=tuple(plan.to_delete),
        deletion_count=plan.delete_count,
        room=room_at(place),
        warnings=(*cold, *(f"{item.path} would not be restored: {item.message}" for item in plan.errors)),
    )


def run(around: Surroundings, manifest: Manifest, target: DirectoryTarget, request: RestoreRequest) -> RestoredPart:
    """Restore. Raises RestoreConflict before anything is written, RestoreFailed."""
    if request.mode == "in_place":
        return _run_in_place(around, manifest, target, request)
    place = expanded(Path(target.destination)).absolute()
    done = run_restore(
        around.repository,
        manifest,
        place,
        request.options(target.source, spared=own_places(around.environ)),
        events=around.events,
    )
    return RestoredPart(
        backup_id=manifest.id,
        kind="files",
        target=told_target(target),
        source=None if target.source is None else os.fspath(target.source),
        files=done.files,
        dirs=done.dirs,
        bytes=done.bytes,
        unchanged=done.unchanged,
        skipped=done.skipped,
        renamed=done.renamed,
        deleted=done.deleted,
        verified=done.verified,
        errors=done.errors,
        problems=tuple(f"{printable(problem.path)}: {problem.message}" for problem in done.problems),
    )


def original_place(repository: Repository, manifest: Manifest, source: str | Path | None) -> DirectoryTarget:
    """Where a backup, or a part of it, came from. Raises InvalidRequest for what lay on no disk, NotFound."""
    if manifest.source.partition(":")[0] in ON_NO_DISK:
        raise InvalidRequest(
            "this backup has no original place to restore to",
            cause="its files never lay on a disk",
            hint="name a directory for the files, or the address of a database",
        )
    place = place_of(repository, manifest, None if source is None else stored_path(source))
    return DirectoryTarget(destination=place, source=source)


def _run_in_place(
    around: Surroundings, manifest: Manifest, target: DirectoryTarget, request: RestoreRequest
) -> RestoredPart:
    """All or nothing. Raises what kept it from being done, when everything is as it was."""
    done = restore_in_place(
        around.repository,
        manifest,
        request.options(target.source, spared=own_places(around.environ)),
        events=around.events,
    )
    if done.error is not None:
        raise done.error
    return RestoredPart(
        backup_id=manifest.id,
        kind="files",
        target=told_target(target),
        source=None if target.source is None else os.fspath(target.source),
        files=done.files,
        bytes=done.bytes,
        unchanged=done.unchanged,
        skipped=done.skipped,
        deleted=done.removed,
        verified=done.verified,
        problems=tuple(f"{printable(problem.path)}: {problem.message}" for problem in done.problems),
    )
