"""Restore backups into targets: which backup goes where, then each into its place, or only a look at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from backstay.control.manager import into_cluster, into_database, into_directory
from backstay.control.manager.into_directory import original_place
from backstay.control.manager.requests import RestoreRequest, Surroundings
from backstay.control.manager.results import PlannedPart, RestoredPart
from backstay.control.manager.targets import (
    ClusterTarget,
    DatabaseTarget,
    DirectoryTarget,
    RestoreTarget,
    told_target,
)
from backstay.errors import CorruptedBackup, InvalidRequest, NotFound
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.snapshots.selectors import LATEST, choose, stored_path
from backstay.repository.snapshots.store import Manifest

__all__ = ["RestoreRequest", "Restoring", "Step", "original_place"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One backup and where it goes; a cluster finds its own base backup."""

    manifest: Manifest | None
    target: RestoreTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoring(Surroundings):
    """One restore: what its surroundings are, and its steps."""

    def steps(self, meant: Sequence[Manifest], targets: Sequence[RestoreTarget]) -> list[Step]:
        """Which backup goes into which target. Raises NotFound, InvalidRequest."""
        return [step for target in targets for step in self._steps(meant, target)]

    def _steps(self, meant: Sequence[Manifest], target: RestoreTarget) -> list[Step]:
        if isinstance(target, ClusterTarget):
            return [Step(manifest=None, target=target)]
        if isinstance(target, DatabaseTarget):
            return [Step(manifest=_dump_for(meant, target), target=target)]
        if target.source is None or len(meant) == 1:
            return [Step(manifest=manifest, target=target) for manifest in meant]
        path = stored_path(target.source)
        return [Step(manifest=choose(meant, LATEST, now=self.clock.now(), path=path), target=target)]

    def validate(self, steps: Sequence[Step]) -> None:
        """Read all that the backups consist of, before anything is written. Raises CorruptedBackup."""
        ids = [step.manifest.id for step in steps if step.manifest is not None]
        if not ids:
            return
        report = run_verify(self.repository, ids, VerifyOptions(read_data=1.0), events=self.events)
        if not report.ok:
            first = next(finding for finding in report.findings if finding.severity == "error")
            raise CorruptedBackup(
                "the backup is damaged, nothing was restored",
                cause=f"{first.subject}: {first.message}",
                hint=first.hint or "restore an earlier one, or mend it by `backstay repair`",
            )

    def preview(self, step: Step, request: RestoreRequest) -> PlannedPart:
        """What a step would do. Raises what looking at its target raises."""
        target = step.target
        if isinstance(target, ClusterTarget):
            return into_cluster.preview(self, target)
        assert step.manifest is not None
        if isinstance(target, DatabaseTarget):
            return into_database.preview(self, step.manifest, target, request)
        if isinstance(target, DirectoryTarget):
            return into_directory.preview(self, step.manifest, target, request)
        assert_never(target)

    def run(self, step: Step, request: RestoreRequest) -> RestoredPart:
        """Restore. Raises RestoreConflict before anything is written, RestoreFailed."""
        self.checkpoint()
        target = step.target
        if isinstance(target, ClusterTarget):
            return into_cluster.run(self, target, request)
        assert step.manifest is not None
        if isinstance(target, DatabaseTarget):
            return into_database.run(self, step.manifest, target, request)
        if isinstance(target, DirectoryTarget):
            return into_directory.run(self, step.manifest, target, request)
        assert_never(target)


def _dump_for(meant: Sequence[Manifest], target: DatabaseTarget) -> Manifest:
    """The one backup that is a dump for such a database. Raises NotFound, InvalidRequest."""
    scheme = target.connection.partition(":")[0]
    kind = {"postgres": "postgresql", "mariadb": "mysql"}.get(scheme, scheme)
    fitting = [manifest for manifest in meant if manifest.source.partition(":")[0] == kind]
    if not fitting:
        kinds = ", ".join(sorted({manifest.source.partition(":")[0] for manifest in meant}))
        raise NotFound(f"there is no dump of {kind} in this backup", cause=f"it is made of {kinds}")
    if len(fitting) > 1:
        raise InvalidRequest(
            f"several dumps could go into {told_target(target)}",
            cause=", ".join(f"{one.id} of {one.name}" for one in fitting),
            hint="name the backup by its id",
        )
    return fitting[0]
