"""A snapshot compared with what lies in its places, item by item: what a restore in place has to change."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from pathlib import Path

from backstay.core.names import printable
from backstay.errors import NotFound, RestoreFailed
from backstay.operations.restore.guarded import Guarded
from backstay.operations.restore.in_place_areas import (
    Areas,
    Immovable,
    LiveDirectory,
    Missing,
    examined,
    require_changeable,
    require_room,
)
from backstay.operations.restore.in_place_plan import SHOWN, Change, InPlacePlan
from backstay.operations.restore.journal import ITEMS, Dress, leftovers
from backstay.operations.restore.known_names import STAYS_SHARED
from backstay.operations.restore.looks import change_time, look_of
from backstay.operations.restore.plan import may_delete_in, wanted
from backstay.operations.restore.request import RestoreOptions
from backstay.operations.restore.sqlite import is_sqlite
from backstay.operations.restore.strangers import NOT_LOOKED_INTO, is_spared, strangers
from backstay.operations.snapshots.walk import Enter, Item, Leave
from backstay.repository.nodes import Node
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.sources.directory_descriptors import is_readable
from backstay.sources.existing import existing_equals
from backstay.sources.facts import Facts
from backstay.sources.files_target import FilesTarget
from backstay.sources.restore_errors import failure
from backstay.sources.source import Problem
from backstay.sources.sqlite.database import SIDE_FILES
from backstay.sources.target_directory import TargetDirectory


@dataclass(frozen=True, slots=True)
class _Name:
    """One that is equal already; `dress` if its attributes are not."""

    change: Change
    size: int
    inode: tuple[int, int]
    link_count: int
    dress: bool


@dataclass(slots=True)
class _Names:
    """All names of one inode of the snapshot: they are restored together, or they are there together already."""

    fresh: bool = False
    there: list[_Name] = field(default_factory=list)

    @property
    def are_apart(self) -> bool:
        """Whether some must become those of one inode with others."""
        return self.fresh or len({name.inode for name in self.there}) > 1

    @property
    def are_shared(self) -> bool:
        """Whether an inode that is to get attributes has names besides these, which must not get them."""
        known = Counter(name.inode for name in self.there)
        return any(name.dress and name.link_count > known[name.inode] for name in self.there)


class Comparison:
    """Compares, and changes nothing. The root of the walk is what `root` stands for."""

    def __init__(self, repository: Repository, manifest: Manifest, root: Path, options: RestoreOptions) -> None:
        self._repository, self._manifest, self._options = repository, manifest, options
        self._guarded = Guarded(repository, options.spared)
        self._target = FilesTarget(root, allow_root=True, guard=self._guarded)
        self._root = os.fsencode(self._target.root)
        self._plan = InPlacePlan()
        self._stack: list[LiveDirectory] = []
        self._areas = Areas(self._plan, self._tops)
        self._immovable = Immovable()
        self._links: dict[bytes, _Names] = {}
        self._dress_if_linked: list[Dress] = []
        self._base = b""
        self._matched = False

    def plan(self) -> InPlacePlan:
        """Raises RestoreConflict, RestoreFailed, InsufficientSpace, InvalidRequest, NotFound."""
        self._target.check(is_written=False)
        try:
            self._begin()
            for visit in wanted(self._repository, self._manifest, self._options):
                if isinstance(visit, Enter):
                    self._enter(visit)
                elif isinstance(visit, Leave):
                    self._leave(self._stack.pop(), visit.passed)
                else:
                    self._item(visit)
            self._end()
        finally:
            for live in self._stack:
                live.close()
        if not self._matched:
            raise NotFound(
                "nothing in this snapshot is what was asked for",
                cause="no path matches the includes, or excludes leave nothing of them",
                hint="`backstay find PATTERN` shows what matches; patterns apply to absolute paths",
            )
        return self._plan

    def _begin(self) -> None:
        """The directory that the root lies in: it must be there."""
        if self._root == b"/":
            return
        above = FilesTarget(self._target.root.parent, allow_root=True, guard=self._guarded)
        if not above.root.is_dir():
            raise RestoreFailed(
                f"cannot restore into {printable(self._root)}",
                cause=f"{printable(os.fsencode(above.root))} is not there",
                hint="make that directory first, or restore the whole snapshot",
            )
        self._stack.append(LiveDirectory(os.fsencode(above.root)))
        self._stack[-1].open(above.open_root(create=False, leads_on=True))
        self._look_for_leftovers(self._stack[-1])

    def _end(self) -> None:
        while self._stack:
            self._leave(self._stack.pop())
        self._relink()
        for place, needed in zip(self._plan.places, self._plan.room, strict=True):
            require_room(place, needed)

    # -- directories

    def _enter(self, visit: Enter) -> None:
        self._matched = self._matched or visit.selected
        is_root = not self._base
        self._base = self._base or visit.path
        above = self._stack[-1] if self._stack else None
        name = self._root.rpartition(b"/")[2] if is_root else visit.node.name if visit.node is not None else b""
        live = LiveDirectory(self._live(visit.path), visit.node, visit.selected)
        if above is not None and above.names is not None:
            above.names.add(name)
        self._stack.append(live)
        if above is None:
            live.open(self._target.open_root(create=False))
        else:
            self._open_child(above, live, visit, name)
        if visit.selected:
            self._decide()
        if live.directory is None:
            return
        if may_delete_in(self._manifest, self._options, visit.path):
            live.names = set()
        if self._areas.may_lie_in(live.path) or above is None or above.mount != live.mount:
            self._look_for_leftovers(live)

    @staticmethod
    def _open_child(above: LiveDirectory, live: LiveDirectory, visit: Enter, name: bytes) -> None:
        info = None if above.directory is None else above.directory.lstat(name)
        if above.directory is not None and info is not None and stat.S_ISDIR(info.st_mode):
            live.open(above.directory.child(name, create=False))
        else:
            live.undecided = Missing(visit, info)

    def _decide(self) -> None:
        """Something is chosen here: whether the directories that lead to it and are not there come."""
        if self._stack[-1].undecided is None:
            return  # nor is any above it
        for above, live in pairwise(self._stack):
            missing, live.undecided = live.undecided, None
            if missing is None:
                continue
            visit, info = missing.visit, missing.info
            if above.fresh:
                live.fresh = True
            elif above.directory is not None and (info is None or self._gives_way(live.path, info, visit.node)):
                live.fresh = True
                self._change(above, live.path, visit.path, old=info, node=visit.node, is_tree=True)

    def _leave(self, live: LiveDirectory, passed: frozenset[bytes] = frozenset()) -> None:
        if live.directory is None:
            return
        try:
            if live.names is not None:
                self._remove_strangers(live, live.directory, live.names | passed)
            new = None
            if live.selected and live.node is not None and self._areas.holds(live.path):  # not on the way
                new = Facts.wanted(live.node, self._target.attributes)
            changes = live.touched or (new is not None and not new.fit(live.facts()))
            if self._stack:
                self._stack[-1].leads |= changes or live.linked or live.leads
            if changes or live.must_be_entered:
                self._stack.append(live)  # which is what an area is looked for by
                self._areas.of(self._stack)
                self._stack.pop()
                self._plan.dresses.append(Dress(live.path, live.facts(), new, keep_mode=True, inode=live.inode))
            elif live.linked:
                self._dress_if_linked.append(Dress(live.path, live.facts(), new, keep_mode=True, inode=live.inode))
        finally:
            live.close()

    def _remove_strangers(self, live: LiveDirectory, directory: TargetDirectory, held: set[bytes]) -> None:
        inside = self._inside(live.path)
        if is_spared(directory, held):
            self._plan.problems.append(Problem(live.path, NOT_LOOKED_INTO))
        found = strangers(directory, inside, held, self._options.chooser)
        self._stack.append(live)
        for above, going in groupby(found, key=lambda stranger: stranger.above):
            base = len(self._stack)
            for name in above:
                self._step_into(name)
            for stranger in going:
                self._remove(self._stack[-1], stranger.path(inside))
            while len(self._stack) > base:
                self._leave(self._stack.pop())
        self._stack.pop()

    def _step_into(self, name: bytes) -> None:
        """A directory that the snapshot does not hold, of which a part goes."""
        above = self._stack[-1]
        assert above.directory is not None
        below = LiveDirectory(above.path.rstrip(b"/") + b"/" + name)
        self._stack.append(below)
        below.open(above.directory.child(name, create=False))

    def _remove(self, above: LiveDirectory, path: bytes) -> None:
        assert above.directory is not None
        info = above.directory.lstat(path.rpartition(b"/")[2])
        if info is not None:
            self._change(above, self._live(path), path, old=info, node=None, removal=True)

    # -- entries

    def _item(self, item: Item) -> None:
        self._matched = True
        node, above = item.node, self._stack[-1]
        self._decide()
        if above.names is not None:
            above.names.add(node.name)
        if stat.S_ISSOCK(node.mode):
            return  # the program that listens on it makes a new one
        names = self._links.setdefault(node.link_group, _Names()) if node.link_group is not None else None
        if above.fresh:
            self._need(node)
            if names is not None:
                names.fresh = True
            return
        if above.directory is None:
            self._plan.skipped += 1
            return
        info = above.directory.lstat(node.name)
        live = above.path.rstrip(b"/") + b"/" + node.name
        if info is not None and existing_equals(above.directory, node.name, node, info=info):
            self._equal(above, live, item, info, names)
        elif info is None or self._gives_way(live, info, node):
            if names is not None:
                names.fresh = True
            self._write(above, live, item, info)

    def _write(self, above: LiveDirectory, live: bytes, item: Item, old: os.stat_result | None) -> None:
        assert above.directory is not None
        self._change(above, live, item.path, old=old, node=item.node)
        self._need(item.node)
        if is_sqlite(self._manifest):
            self._remove_logs(above, above.directory, item)

    def _remove_logs(self, above: LiveDirectory, directory: TargetDirectory, item: Item) -> None:
        """What SQLite keeps beside a database goes with it; else it would be replayed into the restored one."""
        for suffix in SIDE_FILES:
            name = item.node.name + suffix
            info = directory.lstat(name)
            if info is not None:
                live = above.path.rstrip(b"/") + b"/" + name
                self._change(above, live, item.path + suffix, old=info, node=None, removal=True)
                if above.names is not None:
                    above.names.add(name)

    def _equal(
        self,
        above: LiveDirectory,
        live: bytes,
        item: Item,
        info: os.stat_result,
        names: _Names | None,
    ) -> None:
        assert above.directory is not None
        conflict = self._options.conflict
        if conflict == "skip" or (conflict == "newer" and info.st_mtime_ns > item.node.mtime_ns):
            self._plan.unchanged += 1
            return
        old = examined(above.directory.fd, item.node.name, live)
        new = Facts.wanted(item.node, self._target.attributes)
        dress = not new.fit(old)
        if names is None and dress and info.st_nlink > 1:
            if conflict != "fail":
                self._write(above, live, item, info)
                return
            self._plan.problems.append(Problem(live, STAYS_SHARED))
            dress = False
        self._plan.unchanged += 1
        if dress:
            self._areas.of(self._stack)
            self._plan.dresses.append(Dress(live, old, new, inode=info.st_ino))
            above.leads = True
        if names is not None:
            change = self._as_change(above, live, item.path, info)
            inode = (info.st_dev, info.st_ino)
            names.there.append(_Name(change, item.node.size, inode, info.st_nlink, dress))
            above.linked = True

    def _relink(self) -> None:
        """Names that are equal already, but must become those of one inode with others, or of one with no others."""
        conflict = self._options.conflict
        again: list[_Name] = []
        left: list[_Name] = []
        for names in self._links.values():
            if names.are_apart and conflict != "newer":
                again += names.there
            elif names.are_shared and conflict == "fail":
                self._plan.problems.append(Problem(names.there[0].change.live, STAYS_SHARED))
                left += names.there
            elif names.are_shared:
                again += names.there
        for name in again:
            self._plan.changes.append(name.change)
            self._plan.unchanged -= 1
            self._plan.room[name.change.area] += name.size
        if undressed := {name.change.live for name in (*again, *left) if name.dress}:
            self._plan.dresses = [dress for dress in self._plan.dresses if dress.live not in undressed]
        if again:
            self._plan.dresses[:0] = self._dress_if_linked

    def _gives_way(self, path: bytes, info: os.stat_result, node: Node | None) -> bool:
        """Whether what is there is replaced; what makes the restore fail is counted."""
        conflict = self._options.conflict
        if conflict == "skip" or (conflict == "newer" and node is not None and info.st_mtime_ns > node.mtime_ns):
            self._plan.skipped += 1
            return False
        if conflict == "fail":
            self._plan.conflict_count += 1
            if len(self._plan.conflicts) < SHOWN:
                self._plan.conflicts.append(printable(path))
        return True

    # -- changes

    def _change(
        self,
        above: LiveDirectory,
        live: bytes,
        inside: bytes,
        *,
        old: os.stat_result | None,
        node: Node | None,
        removal: bool = False,
        is_tree: bool = False,
    ) -> None:
        """One item of the directory `above` changes; it is dressed when it is a directory that had to be opened."""
        assert above.directory is not None
        if not above.touched:
            self._guarded.refuse_within(above.path)
            require_changeable(above.path, above.directory.fd)
            above.touched = True
        if old is not None and stat.S_ISDIR(old.st_mode):
            self._immovable.refuse(live)
            above.directory.refuse_guarded(live.rpartition(b"/")[2], old)
        self._plan.changes.append(self._as_change(above, live, inside, old, removal=removal, is_tree=is_tree))
        facts = None
        if old is not None and stat.S_ISDIR(old.st_mode):
            facts = examined(above.directory.fd, live.rpartition(b"/")[2], live)
        new = Facts.wanted(node, self._target.attributes) if is_tree and node is not None else None
        if facts is not None or new is not None:
            self._plan.dresses.append(Dress(live, facts, new))

    def _as_change(
        self,
        above: LiveDirectory,
        live: bytes,
        inside: bytes,
        old: os.stat_result | None,
        *,
        removal: bool = False,
        is_tree: bool = False,
    ) -> Change:
        below = inside[len(self._base) :].lstrip(b"/")
        return Change(
            live=live,
            inside=inside,
            staged=ITEMS + b"/" + below if below else ITEMS,
            area=self._areas.of(self._stack),
            old=None if old is None else old.st_ino,
            old_look=None if old is None else _look(above, live, old),
            old_changed=0 if old is None else change_time(old),
            removal=removal,
            is_tree=is_tree,
        )

    def _need(self, node: Node) -> None:
        self._plan.room[self._areas.of(self._stack)] += node.data_size if node.is_file else 0

    def _look_for_leftovers(self, live: LiveDirectory) -> None:
        assert live.directory is not None
        if is_readable(live.directory.fd):
            with suppress(PermissionError):  # another user's, who alone can end that restore
                self._plan.leftovers.extend(leftovers(live.directory.fd, live.path))

    # -- paths

    def _live(self, inside: bytes) -> bytes:
        below = inside[len(self._base) :].lstrip(b"/")
        return self._root.rstrip(b"/") + b"/" + below if below else self._root

    def _inside(self, live: bytes) -> bytes:
        below = live[len(self._root) :].lstrip(b"/")
        return self._base.rstrip(b"/") + b"/" + below if below else self._base

    def _tops(self) -> Iterator[bytes]:
        """What was backed up, as absolute paths here; all of the root if only a part of the snapshot is wanted."""
        if self._base == b"/":
            yield from (self._live(top) for top in self._manifest.paths)
        else:
            yield self._live(self._options.path or self._base)


def _look(above: LiveDirectory, live: bytes, info: os.stat_result) -> str | None:
    """What tells later whether an item was written to. Raises RestoreFailed."""
    assert above.directory is not None
    try:
        return look_of(above.directory.fd, live.rpartition(b"/")[2], info)
    except PermissionError:
        return None  # a directory with one that others have closed, which is not removed in the end
    except OSError as error:
        raise failure(error, live, "examine") from error
