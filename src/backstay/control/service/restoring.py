"""Jobs that restore: all is looked at again, then the backups are restored one after the other.

What was planned may be hours old when the job begins. Order: places are compared with what they were, conflicts of all
backups are looked for, and only then the first byte is written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from backstay.catalog.models.base import Document
from backstay.catalog.models.jobs import Job
from backstay.control.jobs.execution import Execution
from backstay.control.manager.documents import restore_document
from backstay.control.manager.manager import BackupManager
from backstay.control.manager.results import RestoreMode, RestoreRun
from backstay.control.manager.targets import DatabaseTarget, DirectoryTarget, RestoreTarget
from backstay.control.service.context import ServiceContext, backups_of
from backstay.control.service.target_places import own_places, require_apart, require_same
from backstay.core.quantities import plural
from backstay.errors import InvalidRequest, RestoreConflict
from backstay.operations.restore.request import Conflict
from backstay.sources.sqlite.database import path_of


def restore(context: ServiceContext, job: Job, execution: Execution) -> Document:
    """Restore backups, one after the other, into the targets that fit them."""
    asked, backups = job.arguments, backups_of(job)
    if not backups:
        raise InvalidRequest("a restore needs a backup", cause="none is named", hint="name it by its id")
    targets = None if asked.get("mode") == "in_place" else [_target(target) for target in asked.get("targets") or ()]
    manager, done = context.manager(execution), list[RestoreRun]()
    _look_again(context, asked, targets or ())
    if len(backups) > 1:  # one alone looks for itself before it writes
        _require_no_conflict(manager, asked, backups, targets, execution)
    for backup_id in backups:
        execution.checkpoint()
        done.append(
            manager.restore(
                backup_id,
                targets,
                **_wishes(asked),
                validate_before=bool(asked.get("validate_before")),
                verify=bool(asked.get("verify")),
                parallel=asked.get("parallel"),
                dry_run=bool(asked.get("dry_run")),
                events=execution.events,
                checkpoint=execution.checkpoint,
                job_id=job.id,
            )
        )
    return _restored(done)


def _look_again(context: ServiceContext, asked: Document, targets: Sequence[RestoreTarget]) -> None:
    """See that places are what they were when the restore was asked for. Raises RestoreConflict, InvalidRequest."""
    require_same(asked.get("places") or ())
    own = list(own_places(context.data_dir, context.opener()))
    for target in targets:
        if isinstance(target, DirectoryTarget):
            require_apart(Path(target.destination), own)
        elif isinstance(target, DatabaseTarget) and target.connection.startswith("sqlite:"):
            require_apart(Path(os.fsdecode(path_of(target.connection))), own)


def _require_no_conflict(
    manager: BackupManager,
    asked: Document,
    backups: Sequence[str],
    targets: Sequence[RestoreTarget] | None,
    execution: Execution,
) -> None:
    """Look at all before the first is restored. Raises RestoreConflict."""
    found = list[str]()
    for backup_id in backups:
        execution.checkpoint()
        preview = manager.plan_restore(
            backup_id,
            targets,
            **_wishes(asked),
            events=execution.events,
        )
        found += preview.conflicts if preview.refused else ()
    if found:
        raise RestoreConflict(
            f"{plural(len(found), 'item')} differ at the target, nothing was written",
            cause=", ".join(found[:5]),
            paths=tuple(found),
        )


class _Wishes(TypedDict):
    """What a restore and the look before it have in common."""

    include: tuple[str, ...]
    exclude: tuple[str, ...]
    conflict: Conflict
    delete: bool
    mode: RestoreMode


def _wishes(asked: Mapping[str, Any]) -> _Wishes:
    return _Wishes(
        include=tuple(asked.get("include") or ()),
        exclude=tuple(asked.get("exclude") or ()),
        conflict=asked.get("conflict") or "fail",
        delete=bool(asked.get("delete")),
        mode="in_place" if asked.get("mode") == "in_place" else "beside",
    )


def _target(asked: Mapping[str, Any]) -> RestoreTarget:
    if address := asked.get("database"):
        return DatabaseTarget(
            connection=address,
            schemas=tuple(asked.get("schemas") or ()),
            tables=tuple(asked.get("tables") or ()),
            owners=bool(asked.get("owners", True)),
        )
    if path := asked.get("path"):
        return DirectoryTarget(destination=path, source=asked.get("source"))
    raise InvalidRequest("it is not clear where to restore to", cause="the target is neither a path nor a database")


def _restored(runs: Sequence[RestoreRun]) -> Document:
    """One document of all: what was restored of each backup, and the sums."""
    documents = [restore_document(run) for run in runs]
    return documents[0] | {
        "parts": [part for document in documents for part in document["parts"]],
        "files": sum(run.files for run in runs),
        "bytes": sum(run.bytes for run in runs),
        "duration_s": round(sum(run.duration_s for run in runs), 3),
        "ok": all(run.ok for run in runs),
    }
