"""Steps that bring something back: files, dumps, clusters and graphs."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backstay.control.manager.documents import restore_document
from backstay.control.manager.results import RestorePreview
from backstay.control.manager.sources import is_database
from backstay.control.manager.targets import (
    ClusterTarget,
    DatabaseTarget,
    DirectoryTarget,
    RestoreTarget,
    without_password,
)
from backstay.control.policies.values import expanded
from backstay.control.recovery.doing import Doing
from backstay.control.recovery.plan import AnyStep, ClusterStep, GraphStep, RestoreStep, moment_of
from backstay.errors import RestoreConflict, StepFailed
from backstay.graph.file_outputs import FileOutputs
from backstay.graph.manager import GraphBackupManager, RestoreMeans
from backstay.graph.policy import RegenerationPolicy
from backstay.operations.restore.request import Conflict
from backstay.trust.quorum import QuorumPolicy

_PID: str = "postmaster.pid"


def restore(step: RestoreStep, doing: Doing) -> dict[str, Any]:
    """Restore a backup. What a run that was cut short had put into a database is replaced.

    Raises RestoreConflict before anything is written, and what a restore raises.
    """
    assert doing.backup is not None
    conflict = conflict_of(step, own=doing.own)
    preview = preview_restore(step, doing, conflict)
    if preview.refused:
        raise RestoreConflict(
            f"{preview.conflict_count} items are in the way, nothing was written",
            cause=", ".join(preview.conflicts[:5]),
            paths=preview.conflicts,
        )
    if not doing.own:
        doing.writing()
    run = doing.manager.restore(
        doing.backup,
        target_of(step, doing),
        include=step.include,
        exclude=step.exclude,
        conflict=conflict,
        delete=step.delete,
        validate_before=step.validate_before,
        verify=step.verify,
        parallel=step.parallel,
        events=doing.events,
        checkpoint=doing.checkpoint,
        job_id=doing.job_id,
    )
    return _result(restore_document(run))


def preview_restore(step: RestoreStep, doing: Doing, conflict: Conflict | None = None) -> RestorePreview:
    """What it would do. Raises what looking at its target raises."""
    assert doing.backup is not None
    return doing.manager.plan_restore(
        doing.backup,
        target_of(step, doing),
        include=step.include,
        exclude=step.exclude,
        conflict=conflict or step.conflict,
        delete=step.delete,
        events=doing.events,
    )


def place_of(step: AnyStep, environ: Mapping[str, str]) -> str | None:
    """Where a step brings something back, with variables and without secrets; None for those that bring nothing."""
    if not isinstance(step, (RestoreStep, ClusterStep, GraphStep)):
        return None
    return without_password(step.to) if is_database(step.to) else expanded(step.to, environ)


def conflict_of(step: RestoreStep, *, own: bool) -> Conflict:
    """Files that are whole already are no conflict; what is in a database would be."""
    return "overwrite" if own and is_database(step.to) else step.conflict


def target_of(step: RestoreStep, doing: Doing) -> RestoreTarget:
    """Where a step goes."""
    if is_database(step.to):
        return DatabaseTarget(connection=step.to, schemas=step.schemas, tables=step.tables, owners=step.owners)
    place = expanded(step.to, doing.environ)
    return DirectoryTarget(
        destination=place, source=None if step.source is None else expanded(step.source, doing.environ)
    )


def cluster(step: ClusterStep, doing: Doing) -> dict[str, Any]:
    """Recover a cluster. A data directory that a run left unfinished is removed first: it was empty before that run.

    Raises RestoreConflict, RecoveryFailed, and what planning a recovery raises.
    """
    target = cluster_target(step, doing)
    if doing.own:
        _clear(Path(target.destination))
    doing.manager.plan_restore("", target, events=doing.events)  # raises what is in the way
    doing.writing()
    run = doing.manager.restore(
        "",
        target,
        parallel=step.parallel,
        events=doing.events,
        checkpoint=doing.checkpoint,
        job_id=doing.job_id,
    )
    return _result(restore_document(run))


def cluster_target(step: ClusterStep, doing: Doing) -> ClusterTarget:
    """Where a cluster goes."""
    return ClusterTarget(
        destination=expanded(step.to, doing.environ),
        name=step.cluster,
        time=moment_of(step.at),
        port=step.port,
        start=step.start,
        patience_s=doing.left(3600.0),
    )


def graph(step: GraphStep, doing: Doing) -> dict[str, Any]:
    """Bring back what a graph made; all of its files or none. Only what the reader's quorum policy accepts, if any.

    Raises StepFailed, and what such a restore raises.
    """
    rules = RegenerationPolicy.parse(
        {"strategy": step.strategy, "nodes": list(step.nodes), "run_commands": step.run_commands}
    )
    quorum = QuorumPolicy.of_environment(doing.environ)
    with doing.manager.opener.open() as repository:
        graphs = GraphBackupManager(repository, quorum=quorum, events=doing.events)
        outputs = FileOutputs(Path(expanded(step.to, doing.environ)), graphs.values, clock=doing.clock)
        report = graphs.restore_snapshot(graphs.in_force(step.graph).id, rules, RestoreMeans(outputs=outputs))
    if not report.ok:
        raise StepFailed(f"the graph {step.graph!r} is not whole", cause=str(report))
    return {"graph": step.graph, "nodes": dict(report.counts)}


def _clear(place: Path) -> None:
    """Remove a data directory that is the step's own. Raises RestoreConflict when a server may run there."""
    if (place / _PID).exists():
        raise RestoreConflict(
            f"a server runs in {place}, or left its {_PID}",
            cause="an earlier run of this step had started it",
            hint="stop the server and remove the directory, or mark the step as done with --done",
        )
    for path in (place, place.with_name(place.name + ".tablespaces")):
        if path.exists():
            shutil.rmtree(path)


def _result(document: dict[str, Any]) -> dict[str, Any]:
    """What a report needs of a restore."""
    parts = document["parts"]
    return {
        "backups": [part["backup_id"] for part in parts],
        "targets": [part["target"] for part in parts],
        "files": document["files"],
        "bytes": document["bytes"],
        "objects": sum(part["objects"] for part in parts),
        "verified": sum(part["verified"] for part in parts),
        "problems": [problem for part in parts for problem in part["problems"]][:20],
    }
