"""Restore backups, look first what that would do, and look afterwards whether it is still so."""

from __future__ import annotations

import builtins
import statistics
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, TypeAlias

from backstay.control.manager.documents import restore_document
from backstay.control.manager.ground import Checkpoint, Ground, go_on
from backstay.control.manager.restoring import RestoreRequest, Restoring, Step, original_place
from backstay.control.manager.results import PlannedPart, RestoreMode, RestorePreview, RestoreRecord, RestoreRun
from backstay.control.manager.revisiting import RestoreCheck, revisit
from backstay.control.manager.targets import ClusterTarget, DirectoryTarget, RestoreTarget, target_of, told_target
from backstay.core.arguments import Bounds
from backstay.core.events import EventSink, ignore
from backstay.errors import InvalidRequest, RestoreConflict
from backstay.operations.restore.request import MOST_PARALLEL, Conflict
from backstay.repository.repository import Repository
from backstay.repository.snapshots.selectors import stored_path

Place: TypeAlias = str | Path | RestoreTarget

ASSUMED_RATE: Final = 100e6  # bytes per second, as long as no restore was recorded


class Restores(Ground):
    """The part that restores."""

    def restore(
        self,
        backup: str,
        target: Place | Sequence[Place] | None = None,
        *,
        at: datetime | None = None,
        source: str | Path | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        conflict: Conflict = "fail",
        delete: bool = False,
        validate_before: bool = False,
        verify: bool = False,
        parallel: Annotated[int, Bounds(1, MOST_PARALLEL)] | None = None,
        dry_run: bool = False,
        mode: RestoreMode = "beside",
        events: EventSink = ignore,
        checkpoint: Checkpoint = go_on,
        job_id: str | None = None,
    ) -> RestoreRun:
        """Restore what a text means, of each source the newest that is not later than `at`.

        A target is a directory, the address of a database, or one of `DirectoryTarget`, `DatabaseTarget` and
        `ClusterTarget`; each takes the backup that fits it, a cluster alone its newest base backup whatever is named.
        `source` is the path that is wanted. With `mode` `in_place` files go to where they came from. `validate_before`
        reads everything before anything is written, `verify` afterwards. A dry run raises what the restore would
        raise, and writes nothing.

        Raises NotFound, InvalidRequest, RestoreConflict, RestoreFailed, CorruptedBackup, Interrupted.
        """
        request = RestoreRequest(
            include=include,
            exclude=exclude,
            conflict=conflict,
            delete=delete,
            validate_before=validate_before,
            verify=verify,
            parallel=parallel,
            mode=mode,
        )
        begun, started = self._setup.clock.monotonic(), self._setup.clock.now()
        with self.opener.open() as repository:
            restoring = self._restoring(repository, events, checkpoint)
            steps = self._steps(restoring, backup, target, at, source, request)
            if dry_run:
                return self._rehearsed(restoring, steps, request, started, begun)
            with self.records.run("restore", _arguments(backup, steps, request), job_id=job_id) as record:
                record.backup_id = next((step.manifest.id for step in steps if step.manifest is not None), None)
                if validate_before:
                    restoring.validate(steps)
                if len(steps) > 1:  # one alone looks for itself before it writes
                    _require_no_conflict([restoring.preview(step, request) for step in steps], request)
                parts = tuple(restoring.run(step, request) for step in steps)
                done = RestoreRun(
                    id=record.id,
                    mode=mode,
                    parts=parts,
                    include=tuple(include),
                    exclude=tuple(exclude),
                    started_at=started,
                    duration_s=self._setup.clock.monotonic() - begun,
                )
                record.result = restore_document(done)
                done.raise_failure()
                return done

    def plan_restore(
        self,
        backup: str,
        target: Place | Sequence[Place] | None = None,
        *,
        at: datetime | None = None,
        source: str | Path | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        conflict: Conflict = "fail",
        delete: bool = False,
        mode: RestoreMode = "beside",
        events: EventSink = ignore,
    ) -> RestorePreview:
        """What `restore` would do with these arguments: conflicts, sizes, room and time. Nothing is written.

        Raises NotFound, InvalidRequest, and what looking at a target raises.
        """
        request = RestoreRequest(include=include, exclude=exclude, conflict=conflict, delete=delete, mode=mode)
        with self.opener.open() as repository:
            restoring = self._restoring(repository, events, go_on)
            steps = self._steps(restoring, backup, target, at, source, request)
            parts = tuple(restoring.preview(step, request) for step in steps)
        rates = self.records.rates()
        rate = statistics.median(rates) if rates else ASSUMED_RATE
        return RestorePreview(
            parts=parts,
            conflict=conflict,
            seconds=sum(part.bytes for part in parts) / rate,
            based_on="history" if rates else "assumption",
        )

    def verify_restore(
        self, restore_id: str, *, target: Place | None = None, events: EventSink = ignore
    ) -> RestoreCheck:
        """Compare what a restore wrote with the snapshot again, by reading both.

        `target` is needed again where the address of a database had a password.

        Raises NotFound for a restore that is not recorded, RestoreFailed when something differs.
        """
        document = self.records.restored(restore_id)
        given = None if target is None else target_of(target)
        with self.opener.open() as repository:
            found = revisit(self._restoring(repository, events, go_on), restore_id, document, given)
        found.raise_failure()
        return found

    def list_restores(self, *, limit: Annotated[int, Bounds(1)] = 100) -> builtins.list[RestoreRecord]:
        """The restores that were recorded, newest first."""
        return self.records.restores(limit=limit)

    # -- steps

    def _restoring(self, repository: Repository, events: EventSink, checkpoint: Checkpoint) -> Restoring:
        setup = self._setup
        return Restoring(
            repository=repository,
            environ=setup.environ,
            clock=setup.clock,
            warn=setup.warn,
            events=events,
            checkpoint=checkpoint,
        )

    def _steps(
        self,
        restoring: Restoring,
        backup: str,
        target: Place | Sequence[Place] | None,
        at: datetime | None,
        source: str | Path | None,
        request: RestoreRequest,
    ) -> builtins.list[Step]:
        if isinstance(target, ClusterTarget):  # it finds its own base backup
            return restoring.steps((), [target])
        path = None if source is None else stored_path(source)
        meant = self._meant(restoring.repository, backup, at=at, path=path)
        if request.mode == "in_place":
            if target is not None:
                raise InvalidRequest(
                    "a restore in place has no target", cause="files go to where they came from", hint="leave one out"
                )
            places = [original_place(restoring.repository, one, source) for one in meant]
            return [Step(manifest=one, target=place) for one, place in zip(meant, places, strict=True)]
        if target is None:
            raise InvalidRequest(
                "it is not said where to restore to",
                hint="name a directory or a database, or choose mode='in_place'",
            )
        several = isinstance(target, Sequence) and not isinstance(target, str)
        targets = [target_of(one) for one in target] if several else [target_of(target)]  # type: ignore[arg-type,union-attr]
        if not targets:
            raise InvalidRequest("it is not said where to restore to", cause="the list of targets is empty")
        if source is not None:
            targets = [
                DirectoryTarget(destination=one.destination, source=source)
                if isinstance(one, DirectoryTarget) and one.source is None
                else one
                for one in targets
            ]
        return restoring.steps(meant, targets)

    def _rehearsed(
        self,
        restoring: Restoring,
        steps: Sequence[Step],
        request: RestoreRequest,
        started: datetime,
        begun: float,
    ) -> RestoreRun:
        """A run in which nothing was written. Raises RestoreConflict as the real one would."""
        previews = [restoring.preview(step, request) for step in steps]
        _require_no_conflict(previews, request)
        return RestoreRun(
            id="",
            mode=request.mode,
            parts=tuple(part.as_if_done() for part in previews),
            include=tuple(request.include),
            exclude=tuple(request.exclude),
            started_at=started,
            duration_s=self._setup.clock.monotonic() - begun,
        )


def _require_no_conflict(previews: Sequence[PlannedPart], request: RestoreRequest) -> None:
    """See that nothing is in the way of any part. Raises RestoreConflict."""
    conflicts = tuple(path for part in previews for path in part.conflicts)
    if conflicts and request.conflict == "fail":
        raise RestoreConflict(
            f"{sum(part.conflict_count for part in previews)} items differ, nothing was written",
            cause=", ".join(conflicts[:5]),
            paths=conflicts,
        )


def _arguments(backup: str, steps: Sequence[Step], request: RestoreRequest) -> dict[str, object]:
    return {
        "backup": backup,
        "backups": [step.manifest.id for step in steps if step.manifest is not None],
        "targets": [told_target(step.target) for step in steps],
        "include": list(request.include),
        "exclude": list(request.exclude),
        "conflict": request.conflict,
        "mode": request.mode,
    }
