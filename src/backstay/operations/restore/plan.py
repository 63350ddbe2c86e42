"""What a restore would do: which items, into what, and what is in the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from backstay.core.names import printable
from backstay.core.quantities import plural
from backstay.errors import BackstayError, CorruptedBackup, InvalidRequest, NotFound, RestoreConflict, RestoreFailed
from backstay.operations.restore.guarded import Guarded, is_below
from backstay.operations.restore.known_names import KnownNames
from backstay.operations.restore.request import RestoreOptions
from backstay.operations.restore.strangers import strangers
from backstay.operations.restore.tally import FailedItem
from backstay.operations.snapshots.walk import EVERYTHING, Enter, Item, Leave, OnDamage, Visit, subtree, walk
from backstay.operations.tiers.cold_packs import ColdNeed, ColdPacks
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.sources.existing import existing_equals
from backstay.sources.files_target import FilesTarget
from backstay.sources.target_directory import TargetDirectory

SHOWN: Final = 1000  # conflicts and deletions that a plan names


@dataclass(slots=True)
class RestorePlan:
    """What a restore would do; `conflicts` and `to_delete` are the first of as many paths as the counts say."""

    snapshot: str
    target: Path
    files: int = 0
    dirs: int = 0
    bytes: int = 0
    unchanged: int = 0
    conflicts: list[str] = field(default_factory=list)
    conflict_count: int = 0
    to_delete: list[str] = field(default_factory=list)
    delete_count: int = 0
    errors: list[FailedItem] = field(default_factory=list)  # directories that the restore could not enter
    damaged: list[str] | None = None  # directories of which not all that is in them is known; None if nobody looked
    cold: ColdNeed | None = None  # what must be attached or thawed before


def wanted(
    repository: Repository, manifest: Manifest, options: RestoreOptions, on_damage: OnDamage | None = None
) -> Iterator[Visit]:
    """What is to be restored; the root of the walk is what the target directory stands for. `on_damage` as in `walk`.

    Raises InvalidRequest with --delete for a single file, because all that lies beside it would be what the snapshot
    lacks, and for a snapshot that lacks what could not be read.
    """
    if options.delete and manifest.stats.errors:
        raise InvalidRequest(
            f"--delete cannot be used with snapshot {manifest.id}",
            cause=f"{plural(manifest.stats.errors, 'item')} could not be read when it was made, and would be deleted",
            hint="leave --delete out, or take a snapshot that was made without problems",
        )
    path = options.path or b"/"
    node, listing = subtree(manifest.root, path, repository.reader)
    if listing is None:
        assert node is not None
        if options.delete:
            raise InvalidRequest(
                f"--delete has no meaning for {printable(path)}",
                cause="it is no directory of the snapshot, and nothing beside it is restored",
                hint="leave --delete out, or name the directory that it lies in",
            )
        parent = path.rstrip(b"/").rpartition(b"/")[0] or b"/"
        yield Enter(parent, None, False)
        yield Item(path, node)
        yield Leave(parent, None)
        return
    yield from walk(
        listing,
        repository.reader,
        path=path,
        node=node,
        chooser=options.chooser,
        tell_passed=options.delete,
        on_damage=on_damage,
    )


def may_delete_in(manifest: Manifest, options: RestoreOptions, path: bytes) -> bool:
    """Whether --delete reaches into a directory: only below what was backed up, not beside it."""
    return options.delete and any(is_below(path, top) for top in manifest.paths)


def existing_root(target: FilesTarget) -> TargetDirectory | None:
    """The target directory, if it is there. Raises InvalidRequest for a place that there cannot be."""
    try:
        is_there = target.root.is_dir()
    except OSError as error:  # such as a name that is too long
        raise InvalidRequest(
            "nothing can be restored there",
            cause=f"{printable(bytes(target.root))} cannot be looked at: {error.strerror}",
            hint="choose another directory",
        ) from error
    return target.open_root(create=False) if is_there else None


def existing_child(above: TargetDirectory | None, visit: Enter) -> TargetDirectory | None:
    """The directory of a visit, if it is there. Raises RestoreConflict when something else is."""
    if above is None or visit.node is None or above.lstat(visit.node.name) is None:
        return None
    return above.child(visit.node.name, create=False)


@dataclass(slots=True)
class _Place:
    """A directory of the walk as it is in the target."""

    path: bytes
    directory: TargetDirectory | None
    names: set[bytes] | None  # of the snapshot, gathered for --delete
    within: bytes  # the directory of the repository that it is, or lies in


class Planner:
    """Compares a snapshot with a target, and writes nothing."""

    def __init__(
        self, repository: Repository, manifest: Manifest, target: FilesTarget, options: RestoreOptions
    ) -> None:
        self._repository, self._manifest, self._target, self._options = repository, manifest, target, options
        self._guarded = Guarded(repository, options.spared)
        self._cold = ColdPacks(repository)
        self.names = KnownNames()
        self._in_the_way: tuple[bytes, BackstayError] | None = None  # of a directory of which nothing was chosen yet

    def plan(self) -> RestorePlan:
        """Raises InvalidRequest, RestoreFailed for a target that cannot take a restore, NotFound."""
        self._guarded.refuse_within(bytes(self._target.root))
        self._target.check(is_written=not self._options.in_place)
        plan = RestorePlan(self._manifest.id, self._target.root)
        root = existing_root(self._target)
        if root is None and self._options.path is None and self._options.chooser is EVERYTHING and not self._cold:
            stats = self._manifest.stats  # nothing is there, so nothing can conflict
            plan.files, plan.dirs, plan.bytes = stats.files, stats.dirs, stats.bytes
            return plan
        stack: list[_Place] = []
        matched = False
        damaged = plan.damaged = []

        def note(path: bytes, _: CorruptedBackup) -> None:
            damaged.append(printable(path))

        try:
            for visit in wanted(self._repository, self._manifest, self._options, note):
                matched = matched or isinstance(visit, Item) or (isinstance(visit, Enter) and visit.selected)
                if isinstance(visit, Enter):
                    self._enter(plan, visit, stack, root)
                elif isinstance(visit, Leave):
                    self._leave(plan, stack.pop(), visit)
                else:
                    self._item(plan, visit, stack[-1])
        finally:
            for place in stack:
                if place.directory is not None:
                    place.directory.close()
        if not matched and not damaged:
            raise NotFound(
                "nothing in this snapshot is what was asked for",
                cause="no path matches the includes, or excludes leave nothing of them",
                hint="`backstay find PATTERN` shows what matches; patterns apply to absolute paths",
            )
        plan.cold = self._cold.needed()
        return plan

    def _enter(self, plan: RestorePlan, visit: Enter, stack: list[_Place], root: TargetDirectory | None) -> None:
        plan.dirs += 1
        above = stack[-1] if stack else None
        if above is not None and above.names is not None and visit.node is not None:
            above.names.add(visit.node.name)
        try:
            directory = root if above is None else existing_child(above.directory, visit)
        except (RestoreConflict, RestoreFailed) as error:  # which the restore itself tells of what others have closed
            self._in_the_way, directory = (visit.path, error), None
        if visit.selected:
            self._needs_directory(plan)
        names: set[bytes] | None = set() if may_delete_in(self._manifest, self._options, visit.path) else None
        within = b"" if above is None else above.within
        if within and visit.selected:
            self._guarded.refuse_within(within)
        if not within and directory is not None:
            place = self._target.place(directory.path)
            within = place if self._guarded.is_repository(place) else b""
        stack.append(_Place(visit.path, directory, names, within))

    def _item(self, plan: RestorePlan, item: Item, place: _Place) -> None:
        plan.files += 1
        plan.bytes += item.node.size
        self._needs_directory(plan)
        if place.within:
            self._guarded.refuse_within(place.within)
        if place.names is not None:
            place.names.add(item.node.name)
        info = None if place.directory is None else place.directory.lstat(item.node.name)
        if place.directory is None or info is None:
            self._read(item)
        elif existing_equals(place.directory, item.node.name, item.node, info=info):
            plan.unchanged += 1
            self.names.add(item.node, info)
        elif self._target.unmade(item.node) is None:
            self._conflict(plan, item.path)
            if self._options.conflict != "fail" and self._options.replaces(info.st_mtime_ns, item.node):
                place.directory.refuse_guarded(item.node.name, info)
            if self._options.conflict != "skip":
                self._read(item)

    def _read(self, item: Item) -> None:
        """This item's data will be needed; where that is damaged, the restore itself tells."""
        if self._cold:
            with suppress(CorruptedBackup):
                self._cold.need_file(item.node)

    def _leave(self, plan: RestorePlan, place: _Place, visit: Leave) -> None:
        if self._in_the_way is not None and self._in_the_way[0] == place.path:
            self._in_the_way = None  # nothing in it was chosen
        if place.directory is None:
            return
        if place.names is not None and visit.is_whole:
            place.names.update(visit.passed)
            for stranger in strangers(place.directory, place.path, place.names, self._options.chooser):
                plan.delete_count += 1
                if len(plan.to_delete) < SHOWN:
                    plan.to_delete.append(printable(stranger.path(self._target.place(place.directory.path))))
        place.directory.close()

    def _needs_directory(self, plan: RestorePlan) -> None:
        """Something is chosen: what keeps a directory that leads to it from being entered matters now."""
        if self._in_the_way is None:
            return
        (path, error), self._in_the_way = self._in_the_way, None
        if isinstance(error, RestoreConflict) or self._options.conflict == "fail":
            self._conflict(plan, path)
        else:
            plan.errors.append(FailedItem(printable(path), error.code, str(error)))

    @staticmethod
    def _conflict(plan: RestorePlan, path: bytes) -> None:
        plan.conflict_count += 1
        if len(plan.conflicts) < SHOWN:
            plan.conflicts.append(printable(path))
