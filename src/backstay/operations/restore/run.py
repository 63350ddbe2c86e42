"""Restore a snapshot into a directory: find conflicts first, then write in parallel, then apply metadata."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from backstay.core.events import EventSink, Started, finished, ignore
from backstay.core.names import printable
from backstay.core.pipeline import Workers
from backstay.errors import NotFound, RestoreConflict, RestoreFailed
from backstay.operations.restore.comparing import Comparing
from backstay.operations.restore.contents import File, FileWriter, Window
from backstay.operations.restore.guarded import Guarded, is_below
from backstay.operations.restore.known_names import STAYS_SHARED, KnownNames
from backstay.operations.restore.plan import Planner, RestorePlan, may_delete_in, wanted
from backstay.operations.restore.request import Conflict, RestoreOptions
from backstay.operations.restore.sqlite import is_sqlite, look_at_databases
from backstay.operations.restore.strangers import NOT_LOOKED_INTO, is_spared, strangers
from backstay.operations.restore.tally import FailedItem, Tally
from backstay.operations.snapshots.walk import Enter, Item, Leave
from backstay.operations.tiers.cold_packs import make_readable
from backstay.repository.nodes import Node
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.sources.existing import existing_equals
from backstay.sources.files_target import FilesTarget
from backstay.sources.source import Problem
from backstay.sources.sqlite.target import make_way
from backstay.sources.target_directory import TargetDirectory

__all__ = ["Conflict", "FailedItem", "RestoreOptions", "RestorePlan", "RestoreResult", "plan_restore", "run_restore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreResult:
    """What a restore did. `errors` are items that could not be restored, `problems` metadata that could not be set."""

    files: int
    dirs: int
    bytes: int
    unchanged: int
    skipped: int
    renamed: int
    deleted: int
    verified: int
    errors: tuple[FailedItem, ...]
    problems: tuple[Problem, ...]


def plan_restore(repository: Repository, manifest: Manifest, target: Path, options: RestoreOptions) -> RestorePlan:
    """Decide without writing. Raises NotFound, InvalidRequest, RestoreFailed for a target that cannot take it."""
    place = _target(repository, manifest, target, options)
    if is_sqlite(manifest):
        look_at_databases(repository, manifest, place, options, act=False)
    with repository.passing_unreadable():
        return Planner(repository, manifest, place, options).plan()


def run_restore(
    repository: Repository, manifest: Manifest, target: Path, options: RestoreOptions, *, events: EventSink = ignore
) -> RestoreResult:
    """Restore. Raises RestoreConflict, TierNotAttached and ThawPending before the first byte is written.

    A file appears under its name only when it is whole, so a crash leaves files that are complete or absent (and
    temporary ones, which the next restore into the same place removes); running it again completes the rest.
    """
    place = _target(repository, manifest, target, options)
    if is_sqlite(manifest):
        look_at_databases(repository, manifest, place, options, act=True)
    with repository.passing_unreadable():
        return _run_planned(repository, manifest, target, place, options, events)


def _run_planned(
    repository: Repository,
    manifest: Manifest,
    target: Path,
    place: FilesTarget,
    options: RestoreOptions,
    events: EventSink,
) -> RestoreResult:
    planner = Planner(repository, manifest, place, options)
    plan = planner.plan()
    if plan.conflict_count and options.conflict == "fail":
        shown = ", ".join(plan.conflicts[:5]) + (", …" if plan.conflict_count > 5 else "")
        differ = "1 item differs" if plan.conflict_count == 1 else f"{plan.conflict_count} items differ"
        raise RestoreConflict(
            f"{differ} from the snapshot in {target}, nothing was written",
            cause=shown,
            paths=tuple(plan.conflicts),
        )
    make_readable(repository, plan.cold, days=options.thaw_days, wait=options.wait, events=events)
    return _Restore(repository, manifest, place, options, events, planner.names).run(plan)


def _target(repository: Repository, manifest: Manifest, root: Path, options: RestoreOptions) -> FilesTarget:
    return FilesTarget(
        root,
        allow_root=options.in_place,
        before_naming=make_way if is_sqlite(manifest) else None,
        guard=Guarded(repository, options.spared),
    )


@dataclass(slots=True, eq=False)
class _Place:
    """A directory of the snapshot in the target; opened, and created, when something is put into it.

    `blocked` ones stay as they are, with whatever stands in their place.
    """

    path: bytes
    node: Node | None
    parent: _Place | None
    selected: bool
    name: bytes
    directory: TargetDirectory | None = None
    is_new: bool = False
    blocked: bool = False
    names: set[bytes] | None = None  # gathered for --delete


@dataclass(frozen=True, slots=True, eq=False)
class _Moved:
    """What was moved aside for an entry that is not there yet; it stays there if it is `kept`."""

    directory: TargetDirectory
    name: bytes
    path: bytes
    aside: bytes
    kept: bool


class _Restore:
    """One run."""

    def __init__(
        self,
        repository: Repository,
        manifest: Manifest,
        target: FilesTarget,
        options: RestoreOptions,
        events: EventSink,
        names: KnownNames,
    ) -> None:
        self.repository, self.manifest, self.target, self.names = repository, manifest, target, names
        self.options, self.events = options, events
        self.reader = repository.reader
        self.tally = Tally(events)
        self.links: dict[bytes, tuple[_Place, bytes]] = {}
        self.moved: set[_Moved] = set()
        self.verified = 0

    def run(self, plan: RestorePlan) -> RestoreResult:
        self.events(Started(operation="restore", total_files=plan.files, total_bytes=plan.bytes))
        threads = max(self.repository.environment.threads, self.repository.backend.parallel)
        with Workers(self.options.parallel or threads, "restore") as workers:
            writer = FileWriter(self.reader, self.repository.keyring.blob_keys(), self.target, self.tally, workers)
            try:
                for window in self._windows():
                    writer.write(window)
                writer.finish()
            except BaseException:
                workers.close()
                writer.abandon()
                for moved in list(self.moved):
                    self.tally.guard(moved.path, partial(self._settle, moved))
                raise
        self.target.sync()
        if self.options.verify:
            self._verify()
        finished(self.events, "restore")
        return RestoreResult(
            **self.tally.counts,
            verified=self.verified,
            errors=tuple(self.tally.errors),
            problems=tuple(self.target.problems),
        )

    def _windows(self) -> Iterator[Window]:
        window = Window()
        stack: list[_Place] = []
        for visit in wanted(self.repository, self.manifest, self.options, self.tally.note):
            if isinstance(visit, Item):
                self._item(stack[-1], visit, window)
            elif isinstance(visit, Enter):
                stack.append(self._enter(visit, stack[-1] if stack else None))
            else:
                self._leave(stack.pop(), visit, window)
            if window.is_full():
                yield window
                window = Window()
        yield window

    # -- directories

    def _enter(self, visit: Enter, parent: _Place | None) -> _Place:
        name = visit.node.name if visit.node is not None else b""
        place = _Place(visit.path, visit.node, parent, visit.selected, name)
        if may_delete_in(self.manifest, self.options, visit.path):
            place.names = set()
        if parent is not None and parent.names is not None:
            parent.names.add(name)
        place.blocked = parent is not None and parent.blocked
        if (parent is None or visit.selected) and not place.blocked:
            self.tally.guard(visit.path, lambda: self._open(place))
        return place

    def _open(self, place: _Place) -> TargetDirectory | None:
        """The directory itself, created if need be; None when something that stays is in its place."""
        if place.directory is not None:
            return place.directory
        closed: list[_Place] = []
        here: _Place | None = place
        while here is not None and here.directory is None and not here.blocked:
            closed.append(here)
            here = here.parent
        for one in reversed(closed):
            self._open_one(one)
        return place.directory

    def _open_one(self, place: _Place) -> None:
        """A directory whose parent is open or blocked."""
        if place.parent is None:
            place.is_new = not self.target.root.is_dir()
            place.directory = self.target.open_root(create=True)
        elif place.parent.directory is not None:
            self._open_child(place.parent.directory, place.parent, place)
        if place.directory is None:
            place.blocked = True
            return
        self.tally.count("dirs")
        if not place.is_new:
            place.directory.clear_leftovers()  # of a restore that was killed

    def _open_child(self, above: TargetDirectory, parent: _Place, place: _Place) -> None:
        info = None if parent.is_new else above.lstat(place.name)
        place.is_new = info is None
        moved: _Moved | None = None
        if info is not None and not stat.S_ISDIR(info.st_mode):
            if not self.options.replaces(info.st_mtime_ns, place.node):
                self.tally.count("skipped")
                return
            if self.options.conflict == "fail":
                raise _appeared(place.path)
            if self.options.conflict == "rename":
                moved = self._move_aside(above, parent, place.name, place.path)
            place.is_new = True
        try:
            place.directory = above.child(place.name, create=True, replace_nondir=place.is_new and info is not None)
        finally:
            if moved is not None:
                self._settle(moved)

    def _leave(self, place: _Place, visit: Leave, window: Window) -> None:
        directory = place.directory
        if place.names is not None and visit.is_whole and not place.blocked:
            held = place.names
            held.update(visit.passed)
            window.after.append((place.path, lambda: self._delete_strangers(place, directory, held)))
        if directory is None:
            return
        applies = place.node is not None and (place.is_new or (place.selected and not self._is_passed(place)))
        window.close_after(place.path, lambda: self._finish(place, directory, applies=applies))

    def _is_passed(self, place: _Place) -> bool:
        """Whether it is in its original place, and lies above what was backed up."""
        return self.options.in_place and not any(is_below(place.path, top) for top in self.manifest.paths)

    @staticmethod
    def _finish(place: _Place, directory: TargetDirectory, *, applies: bool) -> None:
        try:
            if applies and place.node is not None:
                directory.finish(place.node)
        finally:
            directory.close()

    def _delete_strangers(self, place: _Place, directory: TargetDirectory | None, held: set[bytes]) -> None:
        if directory is not None:
            self._delete_in(directory, place.path, held)
            return
        try:
            directory = self._reopen(place)  # nothing was put into it
        except (NotFound, RestoreConflict):
            return
        try:
            self._delete_in(directory, place.path, held)
        finally:
            directory.close()

    def _delete_in(self, directory: TargetDirectory, path: bytes, held: set[bytes]) -> None:
        if is_spared(directory, held):
            self.target.report(directory.path, NOT_LOOKED_INTO)
        found = list(strangers(directory, path, held, self.options.chooser))
        for above, going in groupby(found, key=lambda stranger: stranger.above):
            place = directory.below(above, removing=True)
            try:
                for stranger in going:
                    self.tally.guard(stranger.path(path), partial(self._delete, place, stranger.name))
            finally:
                place.close()

    def _delete(self, directory: TargetDirectory, name: bytes) -> None:
        directory.remove(name)
        self.tally.count("deleted")

    # -- entries

    def _item(self, place: _Place, item: Item, window: Window) -> None:
        if place.names is not None:
            place.names.add(item.node.name)
        self.tally.guard(item.path, lambda: self._plan_item(place, item, window))

    def _plan_item(self, place: _Place, item: Item, window: Window) -> None:
        directory = self._open(place)
        if directory is None:
            self.tally.count("skipped")
            return
        if place.is_new:
            self._make(directory, place, item, window)
            return
        moved: list[_Moved] = []
        try:
            if self._clear_the_way(directory, place, item, moved):
                self._make(directory, place, item, window)
        finally:  # after a link, which is made at the end of the window
            window.after += [(item.path, partial(self._settle, one)) for one in moved]

    def _make(self, directory: TargetDirectory, place: _Place, item: Item, window: Window) -> None:
        node = item.node
        if node.link_group is not None and self._link(directory, place, item, window):
            return
        if node.is_symlink:
            directory.make_symlink(node.name, node)
            self.tally.done(0)
        elif node.is_file:
            window.add(File(directory, node, item.path))
        elif directory.make_special(node.name, node):
            self.tally.done(0)
        elif node.link_group is not None:
            del self.links[node.link_group]  # a second name has nothing to be linked to, and is told as well

    def _clear_the_way(self, directory: TargetDirectory, place: _Place, item: Item, moved: list[_Moved]) -> bool:
        """Deal with what is in the place of an entry; False when it stays. A file stays until the entry is there.

        With "rename" anything, else a directory, is moved aside before.
        """
        node, conflict = item.node, self.options.conflict
        info = directory.lstat(node.name)
        if info is None:
            return True
        if existing_equals(directory, node.name, node, info=info):
            if node.link_group in self.links and conflict in ("overwrite", "fail"):
                return True  # it may have to become another name of the file that was restored first
            if self._is_dressed(directory, place, item, info):
                self.tally.count("unchanged")
                return False
        elif self.target.unmade(node) is not None and node.link_group not in self.links:
            return True  # nothing comes into its place
        elif conflict == "fail":
            raise _appeared(item.path)
        elif not self.options.replaces(info.st_mtime_ns, node):
            self.tally.count("skipped")
            return False
        if conflict != "rename" and stat.S_ISDIR(info.st_mode):
            directory.refuse_mounts(node.name)
        if conflict == "rename" or stat.S_ISDIR(info.st_mode):
            moved.append(self._move_aside(directory, place, node.name, item.path))
        return True

    def _is_dressed(self, directory: TargetDirectory, place: _Place, item: Item, info: os.stat_result) -> bool:
        """Give an equal item its attributes, where the policy says so; False when it must become a file of its own.

        Only with the right ones it may get more names: they would have those of whoever made it.
        """
        node = item.node
        replaces = self.options.replaces(info.st_mtime_ns, node)
        if replaces and self.names.are_all(node, info):
            directory.apply(node.name, node, info)
        elif not replaces and node.link_group is None:
            return True
        elif not directory.looks_like(node.name, node):
            return not replaces or self._stays_shared(item, info)
        self._remember_link(place, node)
        return True

    def _stays_shared(self, item: Item, info: os.stat_result) -> bool:
        if self.options.conflict != "fail":
            self.names.forget(item.node, info)
            return False
        if self.names.is_first(item.node, info):
            self.target.report(item.path, STAYS_SHARED)
        return True

    def _settle(self, moved: _Moved) -> None:
        """Leave or remove what an entry has replaced, or put it back where there is no such entry."""
        self.moved.discard(moved)
        directory = moved.directory
        if directory.lstat(moved.name) is None:
            directory.put_back(moved.aside, moved.name)
        elif moved.kept:
            self.tally.count("renamed")
        elif self.tally.has_failed(moved.path):
            self.target.report(moved.path, f"what was there is now {printable(moved.aside)}")
        else:
            directory.remove(moved.aside)

    def _move_aside(self, directory: TargetDirectory, place: _Place, name: bytes, path: bytes) -> _Moved:
        moved = _Moved(directory, name, path, directory.set_aside(name), self.options.conflict == "rename")
        if place.names is not None:
            place.names.add(moved.aside)
        self.moved.add(moved)
        return moved

    def _link(self, directory: TargetDirectory, place: _Place, item: Item, window: Window) -> bool:
        """Make another name of an inode that was restored before; False for its first name."""
        assert item.node.link_group is not None
        first = self.links.get(item.node.link_group)
        if first is None:
            self._remember_link(place, item.node)
            return False
        # After the window: by then the first name is surely there.
        window.after.append((item.path, lambda: self._make_link(directory, item, *first)))
        return True

    def _make_link(self, directory: TargetDirectory, item: Item, other: _Place, name: bytes) -> None:
        path = other.path.rstrip(b"/") + b"/" + name
        if self.tally.has_failed(path):  # what has its name now is not what the snapshot holds
            raise RestoreFailed(
                f"cannot link {printable(item.path)}", cause=f"{printable(path)} is the same file, and was not restored"
            )
        holder = self._reopen(other)
        try:
            if _is_same(directory.lstat(item.node.name), holder.lstat(name)):
                self.tally.count("unchanged")
                return
            directory.link(item.node.name, holder, name)
        finally:
            holder.close()
        self.tally.done(0)

    def _reopen(self, place: _Place) -> TargetDirectory:
        """A directory that may have been closed since; component by component, as always."""
        names: list[bytes] = []
        while place.parent is not None:
            names.append(place.name)
            place = place.parent
        root = self.target.open_root(create=False)
        try:
            return root.below(names[::-1])
        finally:
            root.close()

    def _remember_link(self, place: _Place, node: Node) -> None:
        if node.link_group is not None:
            self.links.setdefault(node.link_group, (place, node.name))

    # -- afterwards

    def _verify(self) -> None:
        """Read everything back from the target and compare it with the snapshot."""
        self.events(Started(operation="verify restored files", total_files=self.tally.counts["files"]))
        found = Comparing(self.repository, self.manifest, self.target, self.options).run()
        self.verified = found.equal
        if self.options.conflict not in ("skip", "newer"):
            self.tally.errors += [item for item in found.differing if item not in self.tally.errors]


def _is_same(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    """Whether two names are those of one inode."""
    return one is not None and other is not None and (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _appeared(path: bytes) -> RestoreConflict:
    return RestoreConflict(
        f"{printable(path)} changed since the conflicts were looked for", cause="another program writes there"
    )
