"""Restore a PostgreSQL cluster: a data directory that recovers to a point in time."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from backstay.control.manager.requests import RestoreRequest, Surroundings, room_at
from backstay.control.manager.results import PlannedPart, RestoredPart
from backstay.control.manager.targets import ClusterTarget, told_target
from backstay.operations.clusters.plan import RecoveryTarget, plan_recovery
from backstay.operations.clusters.rehearse import programs_of, start_recovered
from backstay.operations.clusters.restore import ClusterRestoreOptions, require_target, restore_cluster
from backstay.repository.readers import announced
from backstay.repository.snapshots.selectors import LATEST


def preview(around: Surroundings, target: ClusterTarget) -> PlannedPart:
    """What a restore would do. Raises RestoreConflict, TargetNotCovered, WalGap and their kin."""
    place = Path(target.destination).absolute()
    plan = plan_recovery(around.repository, target.name, LATEST, _recovery_target(target))
    require_target(around.repository, plan, place, ClusterRestoreOptions(port=target.port))
    base = around.repository.snapshots.get(plan.base.snapshot)
    return PlannedPart(
        backup_id=base.id,
        kind="cluster",
        target=told_target(target),
        files=base.stats.files,
        dirs=base.stats.dirs,
        bytes=base.stats.bytes + plan.wal_bytes,
        room=room_at(place),
        warnings=tuple(map(str, (*plan.others, *plan.made))),
    )


def run(around: Surroundings, target: ClusterTarget, request: RestoreRequest) -> RestoredPart:
    """Restore, and start a server there if that is wanted. Raises what `preview` does, RecoveryFailed."""
    place = Path(target.destination).absolute()
    options = ClusterRestoreOptions(port=target.port, parallel=request.parallel)
    with announced(around.repository, warn=around.warn) if target.start else nullcontext():
        plan = plan_recovery(around.repository, target.name, LATEST, _recovery_target(target))
        require_target(around.repository, plan, place, options)
        programs = programs_of(plan, None, around.environ) if target.start else None
        done = restore_cluster(around.repository, plan, place, options, events=around.events)
        if programs is not None:
            start_recovered(place, programs, patience_s=target.patience_s, clock=around.clock, events=around.events)
    return RestoredPart(
        backup_id=plan.base.snapshot,
        kind="cluster",
        target=told_target(target),
        files=done.files,
        bytes=done.bytes + done.wal_bytes,
        unchanged=0,
        deleted=done.removed,
        problems=done.problems,
    )


def _recovery_target(target: ClusterTarget) -> RecoveryTarget:
    return RecoveryTarget() if target.time is None else RecoveryTarget(kind="time", time=target.time)
