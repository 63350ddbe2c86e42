"""Restore to the original places: everything is staged beside them and compared, then switched, all or nothing.

`journal.py` says in which order, and what a crash leaves at each step. Whoever calls `restore_in_place` again after a
crash first gets the earlier restore finished, if it had begun to switch, or cleared away.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from backstay.core.events import EventSink, Started, finished, ignore
from backstay.core.ids import new_ulid
from backstay.core.names import printable
from backstay.errors import (
    BackstayError,
    CorruptedBackup,
    InsufficientSpace,
    InvalidRequest,
    ObjectNotFound,
    RestoreConflict,
    RestoreFailed,
)
from backstay.operations.restore.guarded import Guarded
from backstay.operations.restore.in_place_comparison import Comparison
from backstay.operations.restore.in_place_plan import Chosen, InPlacePlan, require_no_conflict
from backstay.operations.restore.in_place_recovery import (
    Recovered,
    Recovery,
    cleared,
    recover,
    removed,
    switch,
    told,
    undo,
)
from backstay.operations.restore.journal import ITEMS, PREFIX, Journal
from backstay.operations.restore.request import RestoreOptions
from backstay.operations.restore.run import RestoreResult, run_restore
from backstay.operations.restore.sqlite import is_sqlite, look_at_databases
from backstay.operations.restore.switching import ChangedMeanwhile, Switching
from backstay.operations.restore.tally import FailedItem
from backstay.operations.snapshots.walk import subtree
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.sources.files_target import FilesTarget
from backstay.sources.restore_errors import failure
from backstay.sources.source import Problem
from backstay.sources.sqlite.target import require_unused
from backstay.sources.switch_calls import SwitchCalls

_DAMAGE: Final = frozenset({CorruptedBackup.code, ObjectNotFound.code})
_ROUNDS: Final = 8  # of clearing away what earlier restores left


@dataclass(frozen=True, slots=True, kw_only=True)
class InPlaceResult:
    """What a restore in place did.

    When the switch failed, everything is as it was: `rolled_back` is true and `error` says why. `kept` names the
    directories in which the old state stays if that was asked for. `replaced`, `added` and `removed` count what changed
    places, a new directory with all that it holds once; `files` and `bytes` what was restored.
    """

    snapshot: str
    target: Path
    files: int = 0
    bytes: int = 0
    verified: int = 0
    unchanged: int = 0
    skipped: int = 0
    replaced: int = 0
    added: int = 0
    removed: int = 0
    dressed: int = 0  # items that got other attributes
    rolled_back: bool = False
    error: BackstayError | None = None
    kept: tuple[Path, ...] = ()
    problems: tuple[Problem, ...] = ()
    recovered: tuple[Recovered, ...] = ()


def restore_in_place(
    repository: Repository,
    snapshot: Manifest,
    options: RestoreOptions,
    *,
    target: Path | None = None,
    events: EventSink = ignore,
    calls: SwitchCalls | None = None,
) -> InPlaceResult:
    """Restore where the snapshot came from, or with the same care into `target`.

    Before anything was moved: RestoreConflict, RestoreFailed, InsufficientSpace, InvalidRequest, NotFound,
    CorruptedBackup, and what reading raises. Afterwards failures are in the result, except for Interrupted, which is
    raised after everything was put back, and RestoreFailed when that is not possible.
    """
    if options.conflict == "rename":
        raise InvalidRequest(
            "--conflict rename does not go with a restore in place",
            cause="it is the whole old state that is moved aside there",
            hint="keep that with --keep-old, or write straight to the places with --direct",
        )
    root = target if target is not None else original_place(repository, snapshot, options.path)
    if target is None and b"/" in snapshot.paths and options.path in (None, b"/"):
        raise InvalidRequest(
            "refusing to replace the whole running system",
            cause="the snapshot was made of /",
            hint="name a part as ID:/PATH, or start another system and restore with --to",
        )
    return _InPlace(repository, snapshot, options, root, events, calls or SwitchCalls()).run()


def original_place(repository: Repository, manifest: Manifest, path: bytes | None) -> Path:
    """Where a subtree's content came from; `/` for a whole snapshot. Raises InvalidRequest for a dump, NotFound."""
    from backstay.operations.restore.postgres_dump import is_dump

    if is_dump(manifest):
        raise InvalidRequest(
            "a dump has no original place to restore to",
            cause="its files never lay on a disk",
            hint="give --to DIR for the files, or --to postgresql://USER@HOST:PORT/DB for the database",
        )
    if path is None:
        return Path("/")
    _, listing = subtree(manifest.root, path, repository.reader)
    place = Path(os.fsdecode(path))
    return place if listing is not None else place.parent


@dataclass(slots=True)
class _InPlace:
    """One run; its methods are the stages in order."""

    repository: Repository
    manifest: Manifest
    options: RestoreOptions
    root: Path
    events: EventSink
    calls: SwitchCalls

    def run(self) -> InPlaceResult:
        Guarded(self.repository).refuse_within(os.path.realpath(os.fsencode(self.root)))
        recovered: list[Recovery] = []
        plan = self._plan(recovered)
        require_no_conflict(plan)
        result = InPlaceResult(
            snapshot=self.manifest.id,
            target=self.root,
            unchanged=plan.unchanged,
            skipped=plan.skipped,
            problems=(*(problem for done in recovered for problem in done.problems), *plan.problems),
            recovered=tuple(done.did for done in recovered),
        )
        if not plan.changes and not plan.dresses:
            return result
        journal = self._begin(plan)
        try:
            return self._switch(journal, self._stage(journal, plan, result))
        finally:
            journal.close()

    def _plan(self, recovered: list[Recovery]) -> InPlacePlan:
        """Compare, after what earlier restores left is finished or cleared away."""
        kept: set[bytes] = set()
        if is_sqlite(self.manifest):
            target = FilesTarget(self.root, allow_root=True)
            look_at_databases(self.repository, self.manifest, target, self.options, act=True)
        for _ in range(_ROUNDS):
            plan = Comparison(self.repository, self.manifest, self.root, self.options).plan()
            found = [path for path in plan.leftovers if path not in kept]
            if not found:
                return plan
            for path in filter(os.path.lexists, found):  # it may have gone with another one
                done = recover(path, self.calls, back=False)
                if done.did == "kept":
                    kept.add(path)
                else:
                    recovered.append(done)
        raise RestoreConflict(
            f"other restores in place go on in {printable(os.fsencode(self.root))}",
            cause="whatever they leave is followed by another one",
            hint="wait until they have ended",
        )

    def _begin(self, plan: InPlacePlan) -> Journal:
        name = PREFIX + new_ulid(self.repository.clock.now_ns(), self.repository.environment.random).encode()
        areas = tuple(place.rstrip(b"/") + b"/" + name for place in plan.places)
        try:
            return Journal.begin(
                areas,
                self.manifest.id,
                keep_old=self.options.keep_old,
                calls=self.calls,
                is_database=is_sqlite(self.manifest),
            )
        except OSError as error:
            with suppress(OSError, BackstayError):  # what was made of it is no harm, and cleared away the next time
                recover(areas[0], self.calls, back=True)
            raise failure(error, areas[0], "stage in") from error

    # -- staging

    def _stage(self, journal: Journal, plan: InPlacePlan, result: InPlaceResult) -> InPlaceResult:
        """Restore what differs into the staging directories, compare it, and write down what will be switched."""
        try:
            done = [self._restore(plan, number, area) for number, area in enumerate(journal.header.areas)]
            errors = [item for one in done for item in one.errors]
            if errors:
                raise _not_staged(errors)
            rows = Switching(journal.header.areas, self.calls).prepare(plan.changes)
            journal.write_rows([*rows, *plan.dresses])
            if is_sqlite(self.manifest):
                for row in rows:
                    require_unused(row.live)
            self.events(Started(operation="switch", total_files=len(rows)))  # the last moment for a sink to stop it
        except OSError as error:
            removed(journal)
            raise failure(error, b"", "stage in") from error
        except BaseException:
            removed(journal)
            raise
        return replace(
            result,
            files=sum(one.files for one in done),
            bytes=sum(one.bytes for one in done),
            verified=sum(one.verified for one in done),
            replaced=sum(row.old is not None and row.new is not None for row in rows),
            added=sum(row.old is None for row in rows),
            removed=sum(row.new is None for row in rows),
            dressed=sum(dress.new is not None for dress in plan.dresses),
            problems=result.problems + tuple(problem for one in done for problem in one.problems),
        )

    def _restore(self, plan: InPlacePlan, number: int, area: bytes) -> RestoreResult:
        if not any(change.area == number and not change.removal for change in plan.changes):
            return _NOTHING
        options = replace(
            self.options,
            chooser=Chosen(plan, number, self.options.chooser),
            conflict="overwrite",
            delete=False,
            verify=True,
            in_place=False,
        )
        staging = Path(os.fsdecode(area + b"/" + ITEMS))
        return run_restore(self.repository, self.manifest, staging, options, events=self.events)

    # -- switching

    def _switch(self, journal: Journal, result: InPlaceResult) -> InPlaceResult:
        switching = Switching(journal.header.areas, self.calls)
        try:
            journal.set_state("switching")
            switch(journal, switching)
        except (OSError, BackstayError) as error:
            problems = undo(journal, self.calls)
            return replace(result, rolled_back=True, error=_switch_failed(error), problems=result.problems + problems)
        except BaseException:
            undo(journal, self.calls)
            raise
        kept = self.options.keep_old
        problems = tuple(switching.problems) if kept else cleared(journal, switching)
        finished(self.events, "switch")
        return replace(
            result,
            problems=result.problems + problems,
            kept=tuple(Path(os.fsdecode(area)) for area in journal.header.areas) if kept else (),
        )


_NOTHING: Final = RestoreResult(
    files=0, dirs=0, bytes=0, unchanged=0, skipped=0, renamed=0, deleted=0, verified=0, errors=(), problems=()
)


def _not_staged(errors: list[FailedItem]) -> BackstayError:
    first = errors[0]
    more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
    title, cause = "nothing was changed: not everything could be restored", f"{first.path}: {first.message}{more}"
    if any(item.code in _DAMAGE for item in errors):
        return CorruptedBackup(
            title, cause=cause, hint="exclude what is damaged with --exclude, or restore what there is with --to DIR"
        )
    return RestoreFailed(title, cause=cause, hint="mend the cause and run the same restore again")


def _switch_failed(error: OSError | BackstayError) -> BackstayError:
    if isinstance(error, BackstayError):
        return error
    title = "the restored items could not be put in their places: the old ones are back"
    if isinstance(error, ChangedMeanwhile):
        return RestoreConflict(title, cause=told(error), hint="stop what writes there, then run the restore again")
    if failure(error, b"", "").code == InsufficientSpace.code:
        return InsufficientSpace(title, cause=told(error), hint="free space there, then run the restore again")
    return RestoreFailed(title, cause=told(error), hint="mend the cause and run the same restore again")
