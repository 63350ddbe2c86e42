"""Restore backups into targets: which backup goes where, then each into its place, or only a look at it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, assert_never

from backstay.control.manager.results import PlannedPart, RestoredPart, RestoreMode
from backstay.control.manager.targets import (
    ClusterTarget,
    DatabaseTarget,
    DirectoryTarget,
    RestoreTarget,
    told_target,
)
from backstay.core.clock import Clock
from backstay.core.events import EventSink, ignore
from backstay.core.names import printable
from backstay.errors import CorruptedBackup, InvalidRequest, NotFound
from backstay.operations.clusters.plan import RecoveryTarget, plan_recovery
from backstay.operations.clusters.rehearse import programs_of, start_recovered
from backstay.operations.clusters.restore import ClusterRestoreOptions, require_target, restore_cluster
from backstay.operations.restore.mysql_dump import plan_mysql_restore, run_mysql_restore
from backstay.operations.restore.plan import Conflict, RestoreOptions
from backstay.operations.restore.postgres_dump import DumpPart, is_dump, plan_dump_restore, run_dump_restore
from backstay.operations.restore.run import plan_restore, run_restore
from backstay.operations.restore.sqlite import restore_sqlite
from backstay.operations.snapshots.walk import EVERYTHING, subtree
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.readers import announced
from backstay.repository.repository import Repository
from backstay.repository.selectors import LATEST, choose
from backstay.repository.snapshots import Manifest
from backstay.sources.filters import Selection
from backstay.sources.sqlite.database import path_of

PATIENCE_S: Final = 3600.0  # for the recovery of a cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """How to restore. `include` and `exclude` choose among files; they do not go with databases.

    `beside` restores to the targets. `in_place` restores files to where they came from: all is written beside its
    place first, and put in place in the end; what was there comes back if anything fails.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    conflict: Conflict = "fail"
    delete: bool = False
    validate_before: bool = False
    verify: bool = False
    parallel: int | None = None
    mode: RestoreMode = "beside"

    def options(self, source: str | Path | None = None) -> RestoreOptions:
        """The same for one restore of files."""
        chosen = Selection(_patterns(self.include), _patterns(self.exclude)) if self.include or self.exclude else None
        return RestoreOptions(
            path=None if source is None else _absolute(source),
            chooser=chosen or EVERYTHING,
            conflict=self.conflict,
            delete=self.delete,
            verify=self.verify,
            in_place=self.mode == "in_place",
            parallel=self.parallel,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One backup and where it goes; a cluster finds its own base backup."""

    manifest: Manifest | None
    target: RestoreTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoring:
    """What a restore needs of its surroundings. `checkpoint` may raise Interrupted, between steps."""

    repository: Repository
    environ: Mapping[str, str] = field(repr=False)
    clock: Clock
    warn: Callable[[str], None]
    events: EventSink = ignore
    checkpoint: Callable[[], None] = lambda: None

    # -- plan

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
        path = _absolute(target.source)
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
            return self._preview_cluster(target)
        assert step.manifest is not None
        if isinstance(target, DatabaseTarget):
            return self._preview_database(step.manifest, target, request)
        if isinstance(target, DirectoryTarget):
            return self._preview_files(step.manifest, target, request)
        assert_never(target)

    def run(self, step: Step, request: RestoreRequest) -> RestoredPart:
        """Restore. Raises RestoreConflict before anything is written, RestoreFailed."""
        self.checkpoint()
        target = step.target
        if isinstance(target, ClusterTarget):
            return self._run_cluster(target, request)
        assert step.manifest is not None
        if isinstance(target, DatabaseTarget):
            return self._run_database(step.manifest, target, request)
        if isinstance(target, DirectoryTarget):
            return self._run_files(step.manifest, target, request)
        assert_never(target)

    # -- files

    def _preview_files(self, manifest: Manifest, target: DirectoryTarget, request: RestoreRequest) -> PlannedPart:
        place = Path(target.destination).expanduser().absolute()
        plan = plan_restore(self.repository, manifest, place, request.options(target.source))
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
            warnings=cold,
        )

    def _run_files(self, manifest: Manifest, target: DirectoryTarget, request: RestoreRequest) -> RestoredPart:
        place = Path(target.destination).expanduser().absolute()
        done = run_restore(self.repository, manifest, place, request.options(target.source), events=self.events)
        return RestoredPart(
            backup_id=manifest.id,
            kind="files",
            target=told_target(target),
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

    # -- databases

    def _preview_database(self, manifest: Manifest, target: DatabaseTarget, request: RestoreRequest) -> PlannedPart:
        options, part, address = _database_options(request), _part(target), target.connection
        told = told_target(target)
        if address.startswith("sqlite:"):
            node = restore_sqlite(self.repository, manifest, path_of(address), _overwriting(options), dry_run=True)
            there = os.path.lexists(path_of(address)) and node is not None
            conflicts = (printable(path_of(address)),) if there else ()
            size = 0 if node is None else node.size
            return PlannedPart(
                backup_id=manifest.id,
                kind="database",
                target=told,
                objects=1,
                bytes=size,
                unchanged=int(node is None),
                conflicts=conflicts,
                conflict_count=len(conflicts),
                room=room_at(Path(os.fsdecode(path_of(address)))),
            )
        if is_dump(manifest):
            plan = plan_dump_restore(
                self.repository, manifest, address, part, options, environ=self.environ, events=self.events
            )
            return _planned(manifest, told, plan.objects, plan.bytes, plan.conflicts, plan.warnings)
        _refuse_parts_of_mysql(part)
        mysql = plan_mysql_restore(
            self.repository, manifest, address, options, environ=self.environ, events=self.events
        )
        return _planned(manifest, told, mysql.objects, mysql.bytes, mysql.conflicts, mysql.warnings)

    def _run_database(self, manifest: Manifest, target: DatabaseTarget, request: RestoreRequest) -> RestoredPart:
        options, part, address = _database_options(request), _part(target), target.connection
        told, verified = told_target(target), 0
        if address.startswith("sqlite:"):
            path = path_of(address)
            node = restore_sqlite(self.repository, manifest, path, options, events=self.events)
            if request.verify:
                same = restore_sqlite(self.repository, manifest, path, _overwriting(options), dry_run=True)
                verified = int(same is None)
            return RestoredPart(
                backup_id=manifest.id,
                kind="database",
                target=told,
                objects=1,
                bytes=0 if node is None else node.size,
                unchanged=int(node is None),
                verified=verified,
            )
        if is_dump(manifest):
            plan = run_dump_restore(
                self.repository, manifest, address, part, options, environ=self.environ, events=self.events
            )
            objects, size, warnings = plan.objects, plan.bytes, plan.warnings
        else:
            _refuse_parts_of_mysql(part)
            mysql = run_mysql_restore(
                self.repository, manifest, address, options, environ=self.environ, events=self.events
            )
            objects, size, warnings = mysql.objects, mysql.bytes, mysql.warnings
        if request.verify:
            verified = self.present(manifest, target)
        return RestoredPart(
            backup_id=manifest.id,
            kind="database",
            target=told,
            objects=objects,
            bytes=size,
            verified=verified,
            problems=warnings,
        )

    def present(self, manifest: Manifest, target: DatabaseTarget) -> int:
        """How many objects of a dump a database has. Raises what looking at it raises."""
        options, address = RestoreOptions(conflict="overwrite"), target.connection
        if address.startswith("sqlite:"):
            return int(restore_sqlite(self.repository, manifest, path_of(address), options, dry_run=True) is None)
        if is_dump(manifest):
            plan = plan_dump_restore(self.repository, manifest, address, _part(target), options, environ=self.environ)
            return len(plan.conflicts)
        return len(plan_mysql_restore(self.repository, manifest, address, options, environ=self.environ).conflicts)

    # -- clusters

    def _preview_cluster(self, target: ClusterTarget) -> PlannedPart:
        place = Path(target.destination).absolute()
        plan = plan_recovery(self.repository, target.name, LATEST, _recovery_target(target))
        require_target(self.repository, plan, place, ClusterRestoreOptions(port=target.port))
        base = self.repository.snapshots.get(plan.base.snapshot)
        return PlannedPart(
            backup_id=base.id,
            kind="cluster",
            target=told_target(target),
            files=base.stats.files,
            dirs=base.stats.dirs,
            bytes=base.stats.bytes + plan.wal_bytes,
            room=room_at(place),
            warnings=tuple(str(other) for other in plan.others),
        )

    def _run_cluster(self, target: ClusterTarget, request: RestoreRequest) -> RestoredPart:
        place = Path(target.destination).absolute()
        options = ClusterRestoreOptions(port=target.port, parallel=request.parallel)
        with announced(self.repository, warn=self.warn) if target.start else nullcontext():
            plan = plan_recovery(self.repository, target.name, LATEST, _recovery_target(target))
            require_target(self.repository, plan, place, options)
            programs = programs_of(plan, None, self.environ) if target.start else None
            done = restore_cluster(self.repository, plan, place, options, events=self.events)
            if programs is not None:
                start_recovered(place, programs, patience_s=PATIENCE_S, clock=self.clock)
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


def original_place(repository: Repository, manifest: Manifest, source: str | Path | None) -> DirectoryTarget:
    """Where a backup, or a part of it, came from. Raises InvalidRequest for what lay on no disk."""
    if is_dump(manifest) or manifest.source.partition(":")[0] in ("mysql", "command"):
        raise InvalidRequest(
            "this backup has no original place to restore to",
            cause="its files never lay on a disk",
            hint="name a directory for the files, or the address of a database",
        )
    if source is None:
        return DirectoryTarget(destination="/")
    path = _absolute(source)
    _, listing = subtree(manifest.root, path, repository.reader)
    place = Path(os.fsdecode(path))
    return DirectoryTarget(destination=place if listing is not None else place.parent, source=source)


def room_at(place: Path) -> int | None:
    """The bytes that are free where a path is, or would be."""
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        found = os.statvfs(place)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


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


def _planned(
    manifest: Manifest, told: str, objects: int, size: int, conflicts: Sequence[str], warnings: Sequence[str]
) -> PlannedPart:
    return PlannedPart(
        backup_id=manifest.id,
        kind="database",
        target=told,
        objects=objects,
        bytes=size,
        conflicts=tuple(conflicts),
        conflict_count=len(conflicts),
        warnings=tuple(warnings),
    )


def _database_options(request: RestoreRequest) -> RestoreOptions:
    if request.conflict not in ("fail", "overwrite", "skip"):
        raise InvalidRequest(
            f"--conflict {request.conflict} does not go with a database",
            cause="it chooses among files",
            hint="use fail or overwrite",
        )
    return RestoreOptions(conflict=request.conflict, parallel=request.parallel)


def _overwriting(options: RestoreOptions) -> RestoreOptions:
    """Options with which looking alone does not end in a conflict."""
    return RestoreOptions(conflict="overwrite", parallel=options.parallel)


def _part(target: DatabaseTarget) -> DumpPart:
    return DumpPart(schemas=tuple(target.schemas), tables=tuple(target.tables), owners=target.owners)


def _refuse_parts_of_mysql(part: DumpPart) -> None:
    if part != DumpPart():
        raise InvalidRequest(
            "a dump of MySQL is restored as a whole",
            cause="schemas, tables or owners are chosen",
            hint="restore it into an empty database, and copy from there what is wanted",
        )


def _recovery_target(target: ClusterTarget) -> RecoveryTarget:
    return RecoveryTarget() if target.time is None else RecoveryTarget(kind="time", time=target.time)


def _patterns(texts: Sequence[str]) -> list[bytes]:
    return [os.fsencode(text) for text in texts]


def _absolute(path: str | Path) -> bytes:
    return os.fsencode(os.path.abspath(path))  # noqa: PTH100 - `..` is taken out
