"""What a restore in place has to change: a snapshot compared with what lies in its places, item by item."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from backstay.core.names import printable
from backstay.errors import InsufficientSpace, InvalidRequest, NotFound, RestoreConflict, RestoreFailed
from backstay.operations.restore.journal import ITEMS, PREFIX, Dress, leftovers
from backstay.operations.restore.plan import RestoreOptions, is_below, local_places, may_delete_in, strangers, wanted
from backstay.operations.snapshots.walk import Chooser, Enter, Item, Leave
from backstay.repository.nodes import Node
from backstay.repository.repository import Repository
from backstay.repository.snapshots import Manifest
from backstay.sources.existing import existing_equals
from backstay.sources.facts import Facts
from backstay.sources.files_target import FilesTarget
from backstay.sources.kernel import mount_id
from backstay.sources.target_directory import TargetDirectory

SHOWN: Final = 1000  # conflicts that are named


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One item to put, to replace or, with `removal`, to take away; `inside` is its path in the snapshot.

    `live` is its absolute path here, `staged` its path in the directory of `area`; `old` is the inode there is.
    """

    live: bytes
    inside: bytes
    staged: bytes
    area: int
    old: int | None
    removal: bool = False
    is_tree: bool = False


@dataclass(slots=True)
class InPlacePlan:
    """`places` are where directories for staging will be made, one on each file system; `room` is needed in each."""

    changes: list[Change] = field(default_factory=list)
    dresses: list[Dress] = field(default_factory=list)
    places: list[bytes] = field(default_factory=list)
    room: list[int] = field(default_factory=list)
    leftovers: list[bytes] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    conflict_count: int = 0
    unchanged: int = 0
    skipped: int = 0


class Chosen:
    """What must be staged in one area: the items that differ and the trees that are not there at all."""

    def __init__(self, plan: InPlacePlan, area: int, chooser: Chooser) -> None:
        ours = [change for change in plan.changes if change.area == area and not change.removal]
        self._items = {change.inside for change in ours if not change.is_tree}
        self._trees = {change.inside for change in ours if change.is_tree}
        self._above: set[bytes] = set()
        for path in self._items | self._trees:
            while (path := path.rpartition(b"/")[0]) and path not in self._above:
                self._above.add(path)
        self._chooser = chooser

    def selects(self, path: bytes, is_dir: bool) -> bool:
        return ((not is_dir and path in self._items) or self._is_in_tree(path)) and self._chooser.selects(path, is_dir)

    def may_contain(self, path: bytes) -> bool:
        return (path in self._above or self._is_in_tree(path)) and self._chooser.may_contain(path)

    def _is_in_tree(self, path: bytes) -> bool:
        if b"/" in self._trees:
            return True
        while path and path not in self._trees:
            path = path.rpartition(b"/")[0]
        return bool(path)


@dataclass(slots=True, eq=False)
class _Live:
    """A directory of the walk as it is here. A `fresh` one is not there, and comes as part of a tree."""

    path: bytes
    node: Node | None = None
    selected: bool = False
    directory: TargetDirectory | None = None
    mount: tuple[int, int] = (0, 0)
    facts: Facts | None = None
    fresh: bool = False
    touched: bool = False
    linked: bool = False  # it holds a name of a file with several
    names: set[bytes] | None = None


@dataclass(slots=True)
class _Names:
    """All names of one inode of the snapshot: they are restored together, or they are there together already."""

    fresh: bool = False
    inodes: set[int] = field(default_factory=set)
    there: list[tuple[Change, int]] = field(default_factory=list)


class Comparison:
    """Compares, and changes nothing. The root of the walk is what `root` stands for."""

    def __init__(self, repository: Repository, manifest: Manifest, root: Path, options: RestoreOptions) -> None:
        self._repository, self._manifest, self._options = repository, manifest, options
        self._target = FilesTarget(root, allow_root=True)
        self._root = os.fsencode(self._target.root)
        self._plan = InPlacePlan()
        self._stack: list[_Live] = []
        self._areas: dict[tuple[int, int], int] = {}
        self._links: dict[bytes, _Names] = {}
        self._dress_if_linked: list[Dress] = []
        self._mounts = _mount_points()
        self._base = b""
        self._matched = False

    def plan(self) -> InPlacePlan:
        """Raises RestoreConflict, RestoreFailed, InsufficientSpace, InvalidRequest, NotFound."""
        self._target.check()
        try:
            self._begin()
            for visit in wanted(self._repository, self._manifest, self._options):
                if isinstance(visit, Enter):
                    self._enter(visit)
                elif isinstance(visit, Leave):
                    self._leave(self._stack.pop())
                else:
                    self._item(visit)
            self._end()
        finally:
            for live in self._stack:
                _close(live)
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
        above = FilesTarget(self._target.root.parent, allow_root=True)
        if not above.root.is_dir():
            raise RestoreFailed(
                f"cannot restore into {printable(self._root)}",
                cause=f"{printable(os.fsencode(above.root))} is not there",
                hint="make that directory first, or restore the whole snapshot",
            )
        self._stack.append(self._opened(_Live(os.fsencode(above.root)), above.open_root(create=False)))
        self._look_for_leftovers(self._stack[-1])

    def _end(self) -> None:
        while self._stack:
            self._leave(self._stack.pop())
        self._relink()
        for place, needed in zip(self._plan.places, self._plan.room, strict=True):
            _require_room(place, needed)

    # -- directories

    def _enter(self, visit: Enter) -> None:
        self._matched = self._matched or visit.selected
        is_root = not self._base
        self._base = self._base or visit.path
        above = self._stack[-1] if self._stack else None
        name = self._root.rpartition(b"/")[2] if is_root else visit.node.name if visit.node is not None else b""
        live = _Live(self._live(visit.path), visit.node, visit.selected)
        if above is not None and above.names is not None:
            above.names.add(name)
        self._stack.append(live)
        if above is None:
            self._opened(live, self._target.open_root(create=False))
        elif above.fresh:
            live.fresh = True
        elif above.directory is not None:
            self._open_child(above, live, visit, name)
        if live.directory is None:
            return
        if may_delete_in(self._manifest, self._options, visit.path):
            live.names = set()
        if self._is_place(visit.path) or above is None or above.mount != live.mount:
            self._look_for_leftovers(live)

    def _open_child(self, above: _Live, live: _Live, visit: Enter, name: bytes) -> None:
        assert above.directory is not None
        info = above.directory.lstat(name)
        if info is not None and stat.S_ISDIR(info.st_mode):
            self._opened(live, above.directory.child(name, create=False))
            return
        if info is not None and not self._gives_way(live.path, info, visit.node):
            return
        live.fresh = True
        self._change(above, live.path, visit.path, old=info, node=visit.node, is_tree=True)

    def _opened(self, live: _Live, directory: TargetDirectory) -> _Live:
        live.directory = directory
        live.mount = (mount_id(directory.fd), os.fstat(directory.fd).st_dev)
        live.facts = Facts.of(directory.fd, b".")
        return live

    def _leave(self, live: _Live) -> None:
        if live.directory is None:
            return
        try:
            if live.names is not None:
                self._remove_strangers(live, live.directory, live.names)
            new = None
            if live.selected and live.node is not None and self._is_at_or_below_a_path(live.path):  # not on the way
                new = Facts.wanted(live.node, self._target.attributes)
            assert live.facts is not None
            if live.touched or (new is not None and not new.fit(live.facts)):
                self._stack.append(live)  # which is what an area is looked for by
                self._area()
                self._stack.pop()
                self._plan.dresses.append(Dress(live.path, live.facts, new))
            elif live.linked:
                self._dress_if_linked.append(Dress(live.path, live.facts, None))
        finally:
            _close(live)

    def _remove_strangers(self, live: _Live, directory: TargetDirectory, names: set[bytes]) -> None:
        inside = self._inside(live.path)
        for path in strangers(directory, inside, names, self._options.chooser):
            name = path.rpartition(b"/")[2]
            info = None if name.startswith(PREFIX) else directory.lstat(name)
            if info is not None:
                self._stack.append(live)
                self._change(live, self._live(path), path, old=info, node=None, removal=True)
                self._stack.pop()

    # -- entries

    def _item(self, item: Item) -> None:
        self._matched = True
        node, above = item.node, self._stack[-1]
        if above.names is not None:
            above.names.add(node.name)
        if stat.S_ISSOCK(node.mode):
            return  # the program that listens on it makes a new one
        names = self._links.setdefault(node.links, _Names()) if node.links is not None else None
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
        if info is not None and existing_equals(above.directory, node.name, node):
            self._equal(above, above.directory, live, item, info, names)
        elif info is None or self._gives_way(live, info, node):
            if names is not None:
                names.fresh = True
            self._change(above, live, item.path, old=info, node=node)
            self._need(node)

    def _equal(
        self,
        above: _Live,
        directory: TargetDirectory,
        live: bytes,
        item: Item,
        info: os.stat_result,
        names: _Names | None,
    ) -> None:
        self._plan.unchanged += 1
        conflict = self._options.conflict
        if conflict == "skip" or (conflict == "newer" and info.st_mtime_ns > item.node.mtime_ns):
            return
        old, new = Facts.of(directory.fd, item.node.name), Facts.wanted(item.node, self._target.attributes)
        if not new.fit(old):
            self._area()
            self._plan.dresses.append(Dress(live, old, new))
        if names is not None and conflict != "newer":
            names.inodes.add(info.st_ino)
            names.there.append((self._as_change(live, item.path, self._area(), info), item.node.size))
            above.linked = True

    def _relink(self) -> None:
        """Names that are equal already, but must become those of one inode with others."""
        again = [names for names in self._links.values() if names.there and (names.fresh or len(names.inodes) > 1)]
        for change, size in (one for names in again for one in names.there):
            self._plan.changes.append(change)
            self._plan.unchanged -= 1
            self._plan.room[change.area] += size
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
        above: _Live,
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
            _require_changeable(above.path, above.directory.fd)
            above.touched = True
        if old is not None:
            self._refuse_what_must_stay(live, old)
        area = self._area()
        self._plan.changes.append(self._as_change(live, inside, area, old, removal=removal, is_tree=is_tree))
        facts = None
        if old is not None and stat.S_ISDIR(old.st_mode):
            facts = Facts.of(above.directory.fd, live.rpartition(b"/")[2])
        new = Facts.wanted(node, self._target.attributes) if is_tree and node is not None else None
        if facts is not None or new is not None:
            self._plan.dresses.append(Dress(live, facts, new))

    def _as_change(
        self,
        live: bytes,
        inside: bytes,
        area: int,
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
            area=area,
            old=None if old is None else old.st_ino,
            removal=removal,
            is_tree=is_tree,
        )

    def _need(self, node: Node) -> None:
        held = node.size if node.extents is None else sum(length for _, length in node.extents)
        self._plan.room[self._area()] += held if node.is_file else 0

    def _refuse_what_must_stay(self, live: bytes, old: os.stat_result) -> None:
        """Raises for what would move a mounted file system or the repository itself."""
        if not stat.S_ISDIR(old.st_mode):
            return
        mounted = next((point for point in self._mounts if is_below(point, live)), None)
        if mounted is not None:
            raise RestoreFailed(
                f"cannot replace {printable(live)}",
                cause=f"a file system is mounted at {printable(mounted)}",
                hint="unmount it, or restore other paths one by one with ID:PATH",
            )
        for place in local_places(self._repository):
            if is_below(place, live):
                raise InvalidRequest(
                    f"cannot replace {printable(live)}",
                    cause=f"the repository lies there, in {printable(place)}",
                    hint="leave --delete out, or exclude it with --exclude",
                )

    def _area(self) -> int:
        """Where the directory that is looked at stages: on its own file system, beside what is restored."""
        here = next(live for live in reversed(self._stack) if live.directory is not None)
        known = self._areas.get(here.mount)
        if known is not None:
            return known
        same = [live for live in self._stack if live.directory is not None and live.mount == here.mount]
        beside = [live for live in reversed(same) if not self._is_at_or_below_a_path(live.path)][:1]
        within = [live for live in same if self._is_at_or_below_a_path(live.path)][:1]
        for live in (*beside, *within):
            assert live.directory is not None
            if os.access(f"/proc/self/fd/{live.directory.fd}", os.W_OK | os.X_OK, effective_ids=True):
                return self._new_area(here.mount, live.path)
        raise RestoreFailed(
            f"cannot restore to {printable(here.path)}",
            cause="beside it there is no directory on its file system that you may write to",
            hint="run this as a user who may, or restore to another directory with --to",
        )

    def _new_area(self, mount: tuple[int, int], place: bytes) -> int:
        self._areas[mount] = len(self._plan.places)
        self._plan.places.append(place)
        self._plan.room.append(0)
        return self._areas[mount]

    def _look_for_leftovers(self, live: _Live) -> None:
        assert live.directory is not None
        with suppress(PermissionError):
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

    def _is_at_or_below_a_path(self, live: bytes) -> bool:
        return any(is_below(live, top) for top in self._tops())

    def _is_place(self, inside: bytes) -> bool:
        """Whether staging directories may lie in it."""
        live = self._live(inside)
        return any(live == top or is_below(top, live) for top in self._tops())


def _require_changeable(path: bytes, fd: int) -> None:
    """Raises RestoreFailed for a directory whose entries this user cannot change."""
    title, hint = f"cannot restore to {printable(path)}", "run this as a user who may, or restore with --to DIR"
    if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        raise RestoreFailed(title, cause="it lies on a read-only file system", hint=hint)
    may_open_it = os.fstat(fd).st_uid == os.geteuid()
    if not may_open_it and not os.access(f"/proc/self/fd/{fd}", os.W_OK | os.X_OK, effective_ids=True):
        raise RestoreFailed(title, cause="no permission to write to it", hint=hint)


def _require_room(place: bytes, needed: int) -> None:
    found = os.statvfs(place)
    free = (found.f_bfree if os.geteuid() == 0 else found.f_bavail) * found.f_frsize
    if needed > free:
        raise InsufficientSpace(
            f"there is not enough room beside {printable(place)}, nothing was changed",
            cause=f"the new items need {needed} bytes while the old ones stay, and {free} are free",
            hint="free space there, or restore a part with ID:PATH; --direct needs room for one file at a time",
        )


def _close(live: _Live) -> None:
    if live.directory is not None:
        live.directory.close()
        live.directory = None


def _mount_points() -> list[bytes]:
    """All of this process's (proc(5), mountinfo: the fifth field, with spaces as octal)."""
    with suppress(OSError), Path("/proc/self/mountinfo").open("rb") as lines:
        return [line.split()[4].replace(b"\\040", b" ").replace(b"\\011", b"\t") for line in lines]
    return []


def require_no_conflict(plan: InPlacePlan) -> None:
    """Raises RestoreConflict if something differs and nothing was said about it."""
    if not plan.conflict_count:
        return
    shown = ", ".join(plan.conflicts[:5]) + (", …" if plan.conflict_count > 5 else "")
    differ = "1 item differs" if plan.conflict_count == 1 else f"{plan.conflict_count} items differ"
    raise RestoreConflict(
        f"{differ} from the snapshot, nothing was changed",
        cause=shown,
        hint="choose --conflict overwrite (the old state can be had back until it is removed), skip or newer",
        paths=tuple(plan.conflicts),
    )
