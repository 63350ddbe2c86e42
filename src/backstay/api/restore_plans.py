"""Restores that are planned: what would happen is shown, and kept for a while to be carried out as it was shown."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import delete

from backstay.api.call import Call
from backstay.api.models.restores import ConflictDocument, PlanDocument, PlannedDocument
from backstay.api.restore_requests import Settled, request_of, targets_of
from backstay.catalog.models import RestorePlanRecord
from backstay.control.manager.restoring import RestoreRequest, Restoring, original_place
from backstay.control.manager.results import PlannedPart
from backstay.control.manager.targets import RestoreTarget
from backstay.core.ids import new_ulid
from backstay.core.quantities import plural
from backstay.errors import NotFound, RestoreConflict
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest

_CONFLICTS = 1000


def previewed(call: Call, restore: Settled) -> list[PlannedPart]:
    """What each part of a restore would do. Raises InvalidRequest, RestoreFailed for targets that take none."""
    request = request_of(restore.arguments)
    with call.backing.browsing.repository() as repository:
        manifests = [repository.snapshots.get(backup.id) for backup in restore.backups]
        restoring = Restoring(
            repository=repository,
            environ=call.backing.service.environ,
            clock=call.backing.clock,
            warn=call.backing.service.warn,
        )
        return [
            restoring.preview(step, request)
            for meant, targets in _grouped(repository, restore, manifests, request)
            for step in restoring.steps(meant, targets)
        ]


def require_nothing_there(call: Call, restore: Settled) -> None:
    """With the conflict mode `fail` nothing of the backup may be at the target, not even an equal file.

    Who asks from afar cannot see what is there: a second restore into the same place is more likely a slip than meant.
    Raises RestoreConflict.
    """
    arguments = restore.arguments
    if arguments.get("conflict") != "fail" or arguments.get("mode") != "beside" or arguments.get("dry_run"):
        return
    places = [Path(target["path"]) for target in arguments.get("targets", ()) if "path" in target]
    if not any(map(os.path.lexists, places)):
        return
    parts = previewed(call, restore)
    paths = tuple(path for part in parts for path in part.conflicts)
    there = sum(part.conflict_count + part.unchanged for part in parts)
    if there:
        raise RestoreConflict(
            f"{plural(there, 'item')} of the backup {'is' if there == 1 else 'are'} at the target already",
            cause=f"{places[0]} is not empty, and nothing says what to do about that",
            hint="choose `conflict`: skip, overwrite, newer or rename, or another directory",
            paths=paths or tuple(map(str, places)),
        )


def _grouped(
    repository: Repository, restore: Settled, manifests: list[Manifest], request: RestoreRequest
) -> list[tuple[list[Manifest], list[RestoreTarget]]]:
    """Which backups go to which targets: all to those that were named, or each to where it came from."""
    if request.mode == "beside":
        return [(manifests, targets_of(restore.arguments))]
    return [([one], [original_place(repository, one, None)]) for one in manifests]


def kept_plan(call: Call, restore: Settled) -> tuple[str, datetime]:
    """Keep a plan for its caller; its id, and until when it is good. Old ones go."""
    now, ident = call.backing.clock.now(), new_ulid(call.backing.clock.now_ns(), call.backing.random)
    until = now + timedelta(minutes=call.backing.options.plan_minutes)
    with call.backing.catalog.session() as session:
        session.execute(delete(RestorePlanRecord).where(RestorePlanRecord.expires_at < now))
        session.add(
            RestorePlanRecord(
                id=ident,
                backup_id=restore.backups[0].id,
                principal=call.principal.user_id,
                request=dict(restore.arguments),
                created_at=now,
                expires_at=until,
            )
        )
        call.record(session)
    return ident, until


def plan_named(call: Call, ident: str) -> dict[str, Any]:
    """The arguments of a plan that the caller made. Raises NotFound, also for plans of others and old ones."""
    with call.backing.catalog.reading() as session:
        found = session.get(RestorePlanRecord, ident[:26])
    if found is None or found.principal != call.principal.user_id or found.expires_at <= call.backing.clock.now():
        raise NotFound(
            f"there is no plan {ident[:80]!r}",
            cause=f"plans are good for {call.backing.options.plan_minutes} minutes, and for who made them",
            hint="plan it again: `POST /api/restore/validate`",
        )
    return dict(found.request)


def plan_document(
    restore: Settled, parts: list[PlannedPart], *, ident: str, expires_at: datetime, seconds: float | None
) -> PlanDocument:
    """A plan as an answer."""
    conflict = restore.arguments.get("conflict", "fail")
    count = sum(part.conflict_count for part in parts)
    return PlanDocument(
        plan_id=ident,
        expires_at=expires_at,
        backups=[backup.id for backup in restore.backups],
        files=sum(part.files for part in parts),
        bytes=sum(part.bytes for part in parts),
        conflict=conflict,
        conflicts=[
            ConflictDocument(path=path, reason="the target holds something else")
            for part in parts
            for path in part.conflicts
        ][:_CONFLICTS],
        conflict_count=count,
        refused=conflict == "fail" and count > 0,
        fits=all(part.fits for part in parts),
        estimated_seconds=seconds,
        parts=[_part(part) for part in parts],
    )


def _part(part: PlannedPart) -> PlannedDocument:
    return PlannedDocument(
        backup_id=part.backup_id,
        kind=part.kind,
        target=part.target,
        files=part.files,
        dirs=part.dirs,
        bytes=part.bytes,
        unchanged=part.unchanged,
        conflict_count=part.conflict_count,
        deletions=list(part.deletions),
        deletion_count=part.deletion_count,
        room=part.room,
        warnings=list(part.warnings),
    )
