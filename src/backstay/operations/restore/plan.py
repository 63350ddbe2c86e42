"""What a restore would do: which items, into what, and what is in the way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from backstay.core.names import printable
from backstay.errors import CorruptedBackup, InvalidRequest, NotFound, RestoreConflict, RestoreFailed
from backstay.operations.restore.known_names import KnownNames
from backstay.operations.restore.request import RestoreOptions
from backstay.operations.snapshots.walk import EVERYTHING, Chooser, Enter, Item, Leave, Visit, subtree, walk
from backstay.operations.tiers.cold_packs import ColdNeed, ColdPacks
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.sources.existing import existing_equals
from backstay.sources.files_target import FilesTarget
from backstay.sources.target_directory import TargetDirectory
from backstay.storage.local import LocalStorage
from backstay.storage.wrapper import Wrapper

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
    cold: ColdNeed | None = None  # what must be attached or thawed before


def wanted(repository: Repository, manifest: Manifest, options: RestoreOptions) -> Iterator[Visit]:
    """What is to be restored; the root of the walk is what the target directory stands for."""
    path = options.path or b"/"
    node, listing = subtree(manifest.root, path, repository.reader)
    if listing is None:
        assert node is not None
        parent = path.rstrip(b"/").rpartition(b"/")[0] or b"/"
        yield Enter(parent, None, False)
        yield Item(path, node)
        yield Leave(parent, None)
        return
    yield from walk(listing, repository.reader, path=path, node=node, chooser=options.chooser)


def may_delete_in(manifest: Manifest, options: RestoreOptions, path: bytes) -> bool:
    """Whether --delete reaches into a directory: only below what was backed up, not beside it."""
    return options.delete and any(is_below(path, top) for top in manifest.paths)


def is_below(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top.rstrip(b"/") + b"/")


def existing_root(target: FilesTarget) -> TargetDirectory | None:
    """The target directory, if it is there."""
    return target.open_root(create=False) if target.root.is_dir() else None


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


class Planner:
    """Compares a snapshot with a target, and writes nothing."""

    def __init__(
        self, repository: Repository, manifest: Manifest, target: FilesTarget, options: RestoreOptions
    ) -> None:
        self._repository, self._manifest, self._target, self._options = repository, manifest, target, options
        self._cold = ColdPacks(repository)
        self.names = KnownNames()

    def plan(self) -> RestorePlan:
        """Raises InvalidRequest, RestoreFailed for a target that cannot take a restore, NotFound."""
        refuse_repository(self._repository, self._target.root)
        self._target.check(is_written=not self._options.in_place)
        plan = RestorePlan(self._manifest.id, self._target.root)
        root = existing_root(self._target)
        if root is None and self._options.path is None and self._options.chooser is EVERYTHING and not self._cold:
            stats = self._manifest.stats  # nothing is there, so nothing can conflict
            plan.files, plan.dirs, plan.bytes = stats.files, stats.dirs, stats.bytes
            return plan
        stack: list[_Place] = []
        matched = False
        try:
            for visit in wanted(self._repository, self._manifest, self._options):
                matched = matched or isinstance(visit, Item) or (isinstance(visit, Enter) and visit.selected)
                if isinstance(visit, Enter):
                    self._enter(plan, visit, stack, root)
                elif isinstance(visit, Leave):
                    self._leave(plan, stack.pop())
                else:
                    self._item(plan, visit, stack[-1])
        finally:
            for place in stack:
                if place.directory is not None:
                    place.directory.close()
        if not matched:
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
        except (RestoreConflict, RestoreFailed):  # which the restore itself tells of what others have closed
            self._conflict(plan, visit.path)
            directory = None
        names: set[bytes] | None = set() if may_delete_in(self._manifest, self._options, visit.path) else None
        stack.append(_Place(visit.path, directory, names))

    def _item(self, plan: RestorePlan, item: Item, place: _Place) -> None:
        plan.files += 1
        plan.bytes += item.node.size
        if place.names is not None:
            place.names.add(item.node.name)
        info = None if place.directory is None else place.directory.lstat(item.node.name)
        if place.directory is None or info is None:
            self._read(item)
        elif existing_equals(place.directory, item.node.name, item.node, info=info):
            plan.unchanged += 1
            self.names.add(item.node, info)
        else:
            self._conflict(plan, item.path)
            if self._options.conflict != "skip":
                self._read(item)

    def _read(self, item: Item) -> None:
        """This item's data will be needed; where that is damaged, the restore itself tells."""
        if self._cold:
            with suppress(CorruptedBackup):
                self._cold.need_file(item.node)

    def _leave(self, plan: RestorePlan, place: _Place) -> None:
        if place.directory is None:
            return
        if place.names is not None:
            for path in strangers(place.directory, place.path, place.names, self._options.chooser):
                plan.delete_count += 1
                if len(plan.to_delete) < SHOWN:
                    plan.to_delete.append(printable(path))
        place.directory.close()

    @staticmethod
    def _conflict(plan: RestorePlan, path: bytes) -> None:
        plan.conflict_count += 1
        if len(plan.conflicts) < SHOWN:
            plan.conflicts.append(printable(path))


def refuse_repository(repository: Repository, root: Path) -> None:
    """Raises InvalidRequest for a target inside of the repository."""
    for place in local_places(repository):
        inside = Path(os.fsdecode(place))
        if root == inside or inside in root.parents:
            raise InvalidRequest(
                f"{root} lies inside the repository",
                cause="restored files would be taken for objects",
                hint="choose a directory outside of the repository",
            )


def local_places(repository: Repository) -> Iterator[bytes]:
    """Where the repository lies, if that is a directory of this machine."""
    backend = repository.backend
    while isinstance(backend, Wrapper):
        backend = backend.inner
    if isinstance(backend, LocalStorage):
        yield os.path.realpath(os.fsencode(backend.url))


def strangers(directory: TargetDirectory, path: bytes, names: set[bytes], chooser: Chooser) -> Iterator[bytes]:
    """Paths of what is in a directory of the target, but not in the snapshot, and not left out by choice."""
    for name in directory.names():
        place = path.rstrip(b"/") + b"/" + name
        if name not in names and chooser.may_contain(place):
            yield place
