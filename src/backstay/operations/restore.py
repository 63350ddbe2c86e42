"""Restore a snapshot into a directory: find conflicts first, then write in parallel, then apply metadata."""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeAlias

from backstay.codec.compression import Buffer
from backstay.core.events import EventSink, Finished, Progress, Started, Warned, ignore
from backstay.core.names import printable
from backstay.core.pipeline import Workers
from backstay.errors import (
    BackstayError,
    CorruptedBackup,
    InsufficientSpace,
    InvalidRequest,
    NotFound,
    RestoreConflict,
    RestoreFailed,
    StorageUnavailable,
)
from backstay.operations.walk import EVERYTHING, Chooser, Enter, Item, Leave, Visit, subtree, walk
from backstay.repository.contents import chunk_ids
from backstay.repository.index import Place
from backstay.repository.nodes import Content, Node
from backstay.repository.repository import Repository
from backstay.repository.snapshots import Manifest
from backstay.sources.files_target import FilesTarget, PendingFile, TargetDirectory, existing_equals
from backstay.sources.source import Problem
from backstay.storage.local import LocalStorage

Conflict: TypeAlias = Literal["fail", "skip", "overwrite", "newer", "rename"]

WINDOW_FILES: Final = 2048  # files planned together, so that each bundle is decoded once for all of them
WINDOW_BYTES: Final = 24 << 20
WHOLE: Final = 8 << 20  # files up to this many bytes are written by one worker; larger ones by several
SHOWN_CONFLICTS: Final = 1000
_LEFTOVER: Final = re.compile(rb"\.backstay-[0-9a-f]{12}-[0-9a-f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """What to restore, and what to do about things that are in the way."""

    path: bytes | None = None  # only this subtree, put itself into the target
    chooser: Chooser = EVERYTHING
    conflict: Conflict = "fail"
    delete: bool = False
    verify: bool = False
    in_place: bool = False
    parallel: int | None = None


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
    errors: tuple[tuple[str, str], ...]
    problems: tuple[Problem, ...]


@dataclass(slots=True)
class RestorePlan:
    """What a restore would do; `conflicts` are the first of `conflict_count` paths that differ."""

    snapshot: str
    target: Path
    files: int = 0
    dirs: int = 0
    bytes: int = 0
    unchanged: int = 0
    conflicts: list[str] = field(default_factory=list)
    conflict_count: int = 0
    to_delete: list[str] = field(default_factory=list)


def plan_restore(
    repository: Repository, manifest: Manifest, target: Path, options: RestoreOptions, *, events: EventSink = ignore
) -> RestorePlan:
    """Decide without writing. Raises NotFound, InvalidRequest, RestoreFailed for a target that cannot take it."""
    return _Restore(repository, manifest, target, options, events).plan()


def run_restore(
    repository: Repository, manifest: Manifest, target: Path, options: RestoreOptions, *, events: EventSink = ignore
) -> RestoreResult:
    """Restore. Raises RestoreConflict before the first byte is written.

    A file appears under its name only when it is whole, so a crash leaves files that are complete or absent (and
    temporary ones, which the next restore into the same place removes); running it again completes the rest.
    """
    restore = _Restore(repository, manifest, target, options, events)
    plan = restore.plan()
    if plan.conflict_count and options.conflict == "fail":
        shown = ", ".join(plan.conflicts[:5]) + (", …" if plan.conflict_count > 5 else "")
        raise RestoreConflict(
            f"{plan.conflict_count} items in {target} differ from the snapshot, nothing was written",
            cause=shown,
            paths=tuple(plan.conflicts),
        )
    return restore.execute(plan)


@dataclass(slots=True, eq=False)
class _Place:
    """A directory of the snapshot in the target; opened, and created, when something is put into it."""

    path: bytes
    node: Node | None
    parent: _Place | None
    selected: bool
    name: bytes
    directory: TargetDirectory | None = None
    is_new: bool = False
    names: set[bytes] | None = None  # gathered for --delete


@dataclass(slots=True, eq=False)
class _File:
    """One regular file to write."""

    place: _Place
    node: Node
    path: bytes
    chunks: list[bytes]

    @property
    def size(self) -> int:
        """Bytes of data, holes left out."""
        return self.node.size if self.node.extents is None else sum(length for _, length in self.node.extents)


@dataclass(slots=True)
class _Window:
    """Files planned together, and what may be done only after they are written."""

    files: list[_File] = field(default_factory=list)
    bytes: int = 0
    after: list[Callable[[], None]] = field(default_factory=list)

    def is_full(self) -> bool:
        return len(self.files) >= WINDOW_FILES or self.bytes >= WINDOW_BYTES or len(self.after) >= WINDOW_FILES


@dataclass(slots=True)
class _Running:
    """What is under way for a window."""

    window: _Window
    blobs: list[tuple[Future[list[Buffer]], list[tuple[_File, Place]]]] = field(default_factory=list)
    files: list[Future[None]] = field(default_factory=list)
    large: list[_LargeFile] = field(default_factory=list)


class _Restore:
    def __init__(
        self, repository: Repository, manifest: Manifest, target: Path, options: RestoreOptions, events: EventSink
    ) -> None:
        self.repository, self.manifest, self.options, self.events = repository, manifest, options, events
        self.reader = repository.reader
        self.target = FilesTarget(target, allow_root=options.in_place)
        self.links: dict[bytes, tuple[_Place, bytes]] = {}
        self.large: list[_LargeFile] = []
        self.errors: list[tuple[str, str]] = []
        self.counts = dict.fromkeys(("files", "dirs", "bytes", "unchanged", "skipped", "renamed", "deleted"), 0)
        self.verified = 0
        self.lock = threading.Lock()
        self.delete_below = tuple(manifest.paths)

    # -- plan

    def plan(self) -> RestorePlan:
        self._refuse_repository()
        self.target.check()
        plan = RestorePlan(self.manifest.id, self.target.root)
        existing = _existing_root(self.target)
        if existing is None and self.options.path is None and self.options.chooser is EVERYTHING:
            stats = self.manifest.stats  # nothing is there, so nothing can conflict
            plan.files, plan.dirs, plan.bytes = stats.files, stats.dirs, stats.bytes
            return plan
        stack: list[TargetDirectory | None] = []
        try:
            for visit in self._visits():
                self._plan_one(plan, visit, stack, existing)
        finally:
            for directory in stack:
                if directory is not None:
                    directory.close()
        return plan

    def _plan_one(
        self, plan: RestorePlan, visit: Visit, stack: list[TargetDirectory | None], root: TargetDirectory | None
    ) -> None:
        if isinstance(visit, Leave):
            directory = stack.pop()
            if directory is not None:
                directory.close()
        elif isinstance(visit, Enter):
            plan.dirs += 1
            stack.append(self._plan_enter(plan, visit, stack, root))
        else:
            plan.files += 1
            plan.bytes += visit.node.size
            directory = stack[-1] if stack else root
            if directory is not None and directory.lstat(visit.node.name) is not None:
                if existing_equals(directory, visit.node.name, visit.node):
                    plan.unchanged += 1
                else:
                    self._note_conflict(plan, visit.path)

    def _plan_enter(
        self, plan: RestorePlan, visit: Enter, stack: list[TargetDirectory | None], root: TargetDirectory | None
    ) -> TargetDirectory | None:
        if not stack:
            return root
        above = stack[-1]
        assert visit.node is not None
        if above is None or above.lstat(visit.node.name) is None:
            return None
        try:
            return above.child(visit.node.name, create=False)
        except RestoreConflict:
            self._note_conflict(plan, visit.path)
            return None

    @staticmethod
    def _note_conflict(plan: RestorePlan, path: bytes) -> None:
        plan.conflict_count += 1
        if len(plan.conflicts) < SHOWN_CONFLICTS:
            plan.conflicts.append(printable(path))

    def _refuse_repository(self) -> None:
        backend = self.repository.backend
        if isinstance(backend, LocalStorage):
            inside = Path(os.path.realpath(backend.url))
            if self.target.root == inside or inside in self.target.root.parents:
                raise InvalidRequest(
                    f"{self.target.root} lies inside the repository",
                    cause="restored files would be taken for objects",
                    hint="choose a directory outside of the repository",
                )

    def _visits(self) -> Iterator[Visit]:
        """What is to be restored; the root of the walk is what the target directory stands for."""
        path = self.options.path or b"/"
        node, listing = subtree(self.manifest.root, path, self.reader)
        if listing is None:
            assert node is not None
            parent = path.rstrip(b"/").rpartition(b"/")[0] or b"/"
            yield Enter(parent, None, False)
            yield Item(path, node)
            yield Leave(parent, None)
            return
        yield from walk(listing, self.reader, path=path, node=node, chooser=self.options.chooser)

    # -- execute

    def execute(self, plan: RestorePlan) -> RestoreResult:
        self.events(Started(operation="restore", total_files=plan.files, total_bytes=plan.bytes))
        threads = self.options.parallel or self.repository.environment.threads
        with Workers(threads, "restore") as workers:
            before = _Running(_Window())
            try:
                for window in self._windows():
                    following = self._submit(window, workers)
                    self._settle(before)
                    before = following
                self._settle(before)
            except BaseException:
                workers.close()
                self._abandon_large()
                raise
        self._sync()
        if self.options.verify:
            self._verify()
        self.events(Finished(operation="restore"))
        return self._result()

    def _windows(self) -> Iterator[_Window]:
        window = _Window()
        stack: list[_Place] = []
        for visit in self._visits():
            if isinstance(visit, Enter):
                stack.append(self._enter(visit, stack[-1] if stack else None))
            elif isinstance(visit, Leave):
                self._leave(stack.pop(), window)
            else:
                self._item(stack[-1], visit, window)
            if window.is_full():
                yield window
                window = _Window()
        yield window

    def _settle(self, running: _Running) -> None:
        """Write a window's small files, wait for its others, then do what had to wait for all of them.

        Small files are written here, by one thread: they are all system calls, and threads would spend as much again
        on handing the interpreter to each other.
        """
        for blob, group in running.blobs:
            self._write_group(blob, group)
        for future in running.files:
            future.result()
        for action in running.window.after:
            self.guard(None, action)
        for large in running.large:
            large.abandon()
            self.large.remove(large)
        self.events(Progress(files=self.counts["files"], bytes=self.counts["bytes"]))

    def _abandon_large(self) -> None:
        """Files that several workers wrote and that are not complete by now never will be."""
        for large in self.large:
            large.abandon()
        self.large.clear()

    def guard(self, path: bytes | None, action: Callable[[], object]) -> None:
        """Run one step; what concerns a single item is noted, and the rest goes on."""
        try:
            action()
        except (InsufficientSpace, StorageUnavailable):
            raise
        except (CorruptedBackup, RestoreFailed, RestoreConflict, NotFound) as error:
            self._note(path or b"", error)

    def _note(self, path: bytes, error: BackstayError) -> None:
        with self.lock:
            self.errors.append((printable(path), str(error)))
        self.events(Warned(message=str(error), path=printable(path)))

    # -- directories

    def _enter(self, visit: Enter, parent: _Place | None) -> _Place:
        name = visit.node.name if visit.node is not None else b""
        place = _Place(visit.path, visit.node, parent, visit.selected, name)
        if self.options.delete and any(_is_below(visit.path, path) for path in self.delete_below):
            place.names = set()
        if parent is not None and parent.names is not None:
            parent.names.add(name)
        if parent is None or visit.selected:
            self.guard(visit.path, lambda: self._open(place))
        return place

    def _open(self, place: _Place) -> TargetDirectory:
        """The directory itself, created if need be."""
        if place.directory is not None:
            return place.directory
        if place.parent is None:
            existed = self.target.root.is_dir()
            place.directory = self.target.open_root(create=True)
            place.is_new = not existed
        else:
            place.directory, place.is_new = self._open_child(self._open(place.parent), place)
        self.counts["dirs"] += 1
        if not place.is_new:
            self._clear_leftovers(place.directory)
        return place.directory

    def _open_child(self, parent: TargetDirectory, place: _Place) -> tuple[TargetDirectory, bool]:
        info = parent.lstat(place.name) if not (place.parent and place.parent.is_new) else None
        if info is None:
            return parent.child(place.name, create=True), True
        try:
            return parent.child(place.name, create=True), False
        except RestoreConflict:
            if self.options.conflict == "fail" or self.options.conflict == "skip":
                raise
            if self.options.conflict == "newer" and place.node is not None and info.st_mtime_ns > place.node.mtime_ns:
                raise
            if self.options.conflict == "rename":
                self._set_aside(parent, place.parent, place.name)
            return parent.child(place.name, create=True, replace_nondir=True), True

    @staticmethod
    def _clear_leftovers(directory: TargetDirectory) -> None:
        """Remove the temporary files of a restore that was killed."""
        for name in directory.names():
            if _LEFTOVER.fullmatch(name):
                directory.remove(name)

    def _leave(self, place: _Place, window: _Window) -> None:
        directory = place.directory
        if directory is None:
            return
        if place.names is not None:
            window.after.append(lambda: self._delete_strangers(place, directory))
        applies = place.node is not None and (place.selected or place.is_new)
        window.after.append(lambda: self._finish(place, directory, applies=applies))

    @staticmethod
    def _finish(place: _Place, directory: TargetDirectory, *, applies: bool) -> None:
        try:
            if applies and place.node is not None:
                directory.finish(place.node)
        finally:
            directory.close()

    def _delete_strangers(self, place: _Place, directory: TargetDirectory) -> None:
        assert place.names is not None
        for name in directory.names():
            path = place.path.rstrip(b"/") + b"/" + name
            if name not in place.names and self.options.chooser.may_contain(path):
                directory.remove(name)
                self.counts["deleted"] += 1

    # -- entries

    def _item(self, place: _Place, item: Item, window: _Window) -> None:
        if place.names is not None:
            place.names.add(item.node.name)
        self.guard(item.path, lambda: self._plan_item(place, item, window))

    def _plan_item(self, place: _Place, item: Item, window: _Window) -> None:
        directory, node = self._open(place), item.node
        if not place.is_new and not self._clear_the_way(directory, place, item):
            return
        if node.links is not None and self._link(directory, place, item, window):
            return
        if node.is_symlink:
            directory.make_symlink(node.name, node)
            self.done(0)
        elif node.is_file:
            content = node.content or Content(0, b"")
            file = _File(place, node, item.path, list(chunk_ids(content, self.reader)))
            window.files.append(file)
            window.bytes += file.size
        elif directory.make_special(node.name, node):
            self.done(0)

    def _clear_the_way(self, directory: TargetDirectory, place: _Place, item: Item) -> bool:
        """Deal with what is in the place of an entry; False when it stays."""
        node, conflict = item.node, self.options.conflict
        info = directory.lstat(node.name)
        if info is None:
            return True
        if existing_equals(directory, node.name, node):
            if conflict != "skip" and not (conflict == "newer" and info.st_mtime_ns > node.mtime_ns):
                directory.apply(node.name, node)
            self.counts["unchanged"] += 1
            self._remember_link(place, node)
            return False
        if conflict == "fail":
            raise RestoreConflict(f"{printable(item.path)} changed since the conflicts were looked for")
        if conflict == "skip" or (conflict == "newer" and info.st_mtime_ns > node.mtime_ns):
            self.counts["skipped"] += 1
            return False
        if conflict == "rename":
            self._set_aside(directory, place, node.name)
        elif stat.S_ISDIR(info.st_mode):
            directory.remove(node.name)
        return True

    def _set_aside(self, directory: TargetDirectory, place: _Place | None, name: bytes) -> None:
        aside = directory.set_aside(name)
        self.counts["renamed"] += 1
        if place is not None and place.names is not None:
            place.names.add(aside)

    def _link(self, directory: TargetDirectory, place: _Place, item: Item, window: _Window) -> bool:
        """Make another name of an inode that was restored before; False for its first name."""
        assert item.node.links is not None
        first = self.links.get(item.node.links)
        if first is None:
            self._remember_link(place, item.node)
            return False
        # After the window: by then the first name is surely there.
        window.after.append(lambda: self._make_link(directory, item, *first))
        return True

    def _make_link(self, directory: TargetDirectory, item: Item, other: _Place, name: bytes) -> None:
        holder = self._reopen(other)
        try:
            directory.link(item.node.name, holder, name)
        finally:
            holder.close()
        self.done(0)

    def _reopen(self, place: _Place) -> TargetDirectory:
        """A directory that may have been closed since; component by component, as always."""
        if place.parent is None:
            return self.target.open_root(create=False)
        above = self._reopen(place.parent)
        try:
            return above.child(place.name, create=False)
        finally:
            above.close()

    def _remember_link(self, place: _Place, node: Node) -> None:
        if node.links is not None:
            self.links.setdefault(node.links, (place, node.name))

    # -- file contents

    def _submit(self, window: _Window, workers: Workers) -> _Running:
        """Start on a window: decode the blobs that hold single chunks, and write the other files."""
        running = _Running(window)
        groups: dict[tuple[int, int], list[tuple[_File, Place]]] = {}
        for file in window.files:
            if len(file.chunks) == 1:
                found = self._locate(file)
                if found is not None:
                    groups.setdefault((found.pack, found.ordinal), []).append((file, found))
            elif file.size > WHOLE:
                self._submit_large(file, workers, running)
            else:
                running.files.append(workers.submit(self._write_whole, file))
        running.blobs += [(workers.submit(self._decode_group, group), group) for group in groups.values()]
        return running

    def _locate(self, file: _File) -> Place | None:
        found: list[Place] = []
        self.guard(file.path, lambda: found.append(self.reader.place(file.chunks[0])))
        return found[0] if found else None

    def _decode_group(self, group: list[tuple[_File, Place]]) -> list[Buffer]:
        """The contents of all files that lie in one blob, which is decoded once; each is checked."""
        blob = self.reader.blob(group[0][1])
        return [self.reader.slice(blob, at, file.chunks[0]) for file, at in group]

    def _write_group(self, decoded: Future[list[Buffer]], group: list[tuple[_File, Place]]) -> None:
        try:
            contents = decoded.result()
        except (CorruptedBackup, NotFound):
            for file, _ in group:  # one by one, so that each is reported, or found in its new place
                self._write_whole(file)
            return
        for (file, _), data in zip(group, contents, strict=True):
            self.guard(file.path, partial(self._write_small, file, data))

    def _write_small(self, file: _File, data: Buffer) -> None:
        directory = file.place.directory
        assert directory is not None
        directory.write_small(file.node.name, data, file.node)
        self.done(len(data))

    def _write_whole(self, file: _File) -> None:
        """Write one file, chunk after chunk."""

        def write() -> None:
            parts = [self.reader.chunk(chunk) for chunk in file.chunks]
            self._write_small(file, parts[0] if len(parts) == 1 else b"".join(parts))

        self.guard(file.path, write)

    def _submit_large(self, file: _File, workers: Workers, running: _Running) -> None:
        """Write one file by several workers, out of order; the last one gives it its name."""
        directory = file.place.directory
        assert directory is not None
        pending: list[PendingFile] = []
        self.guard(
            file.path,
            lambda: pending.append(directory.begin_file(file.node.name, file.node.size, file.node.extents)),
        )
        if not pending:
            return
        if sum(self.reader.place(chunk).length for chunk in file.chunks) != file.size:
            pending[0].abandon()
            self._note(file.path, CorruptedBackup("its chunks do not add up to its size"))
            return
        large = _LargeFile(file, pending[0], self)
        self.large.append(large)
        running.large.append(large)
        running.files += [workers.submit(large.write, piece) for piece in large.starts()]

    def done(self, size: int) -> None:
        with self.lock:
            self.counts["files"] += 1
            self.counts["bytes"] += size

    # -- afterwards

    def _sync(self) -> None:
        self.target.sync()

    def _verify(self) -> None:
        """Read everything back from the target and compare it with the snapshot."""
        self.events(Started(operation="verify restored files", total_files=self.counts["files"]))
        root = _existing_root(self.target)
        stack: list[TargetDirectory | None] = []
        for visit in self._visits():
            if isinstance(visit, Enter):
                above = stack[-1] if stack else None
                inner = root if not stack else self._existing_child(above, visit)
                stack.append(inner)
            elif isinstance(visit, Leave):
                directory = stack.pop()
                if directory is not None:
                    directory.close()
            else:
                self._verify_item(stack[-1], visit)

    @staticmethod
    def _existing_child(above: TargetDirectory | None, visit: Enter) -> TargetDirectory | None:
        if above is None or visit.node is None or above.lstat(visit.node.name) is None:
            return None
        return above.child(visit.node.name, create=False)

    def _verify_item(self, directory: TargetDirectory | None, item: Item) -> None:
        if stat.S_ISSOCK(item.node.mode):
            return
        if directory is not None and existing_equals(directory, item.node.name, item.node):
            self.verified += 1
        elif self.options.conflict not in ("skip", "newer"):
            self.errors.append((printable(item.path), "is not what the snapshot holds after it was restored"))

    def _result(self) -> RestoreResult:
        return RestoreResult(
            **self.counts,
            verified=self.verified,
            errors=tuple(self.errors),
            problems=tuple(self.target.problems),
        )


class _LargeFile:
    """One file written by several workers."""

    def __init__(self, file: _File, pending: PendingFile, restore: _Restore) -> None:
        self._file, self._pending, self._restore = file, pending, restore
        self._left = len(file.chunks)
        self._failed = False
        self._lock = threading.Lock()

    def starts(self) -> Iterator[tuple[bytes, int]]:
        """(chunk, offset in the file's data) of each chunk; the index knows their lengths."""
        offset = 0
        for chunk in self._file.chunks:
            yield chunk, offset
            offset += self._restore.reader.place(chunk).length

    def write(self, piece: tuple[bytes, int]) -> None:
        """Write one chunk; the worker that does the last one gives the file its name."""
        self._restore.guard(self._file.path, lambda: self._write(*piece))
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last and not self._failed:
            self._restore.guard(self._file.path, self._complete)

    def _write(self, chunk: bytes, offset: int) -> None:
        if self._failed:
            return
        try:
            data = memoryview(self._restore.reader.chunk(chunk))
            for at, start, length in pieces(self._file.node.extents, offset, len(data)):
                self._pending.write_at(at, data[start : start + length])
        except BaseException:
            self._failed = True
            raise

    def _complete(self) -> None:
        self._pending.commit(self._file.node)
        self._restore.done(self._file.node.size)

    def abandon(self) -> None:
        """Remove what is not complete; nothing happens to a file that is."""
        self._pending.abandon()


def pieces(extents: Sequence[tuple[int, int]] | None, offset: int, length: int) -> Iterator[tuple[int, int, int]]:
    """(offset in the file, offset in the chunk, length) of a chunk that lies at `offset` of the joined data."""
    if extents is None:
        yield offset, 0, length
        return
    done = 0
    for start, size in extents:
        low, high = max(offset, done), min(offset + length, done + size)
        if low < high:
            yield start + low - done, low - offset, high - low
        done += size


def _existing_root(target: FilesTarget) -> TargetDirectory | None:
    return target.open_root(create=False) if target.root.is_dir() else None


def _is_below(path: bytes, top: bytes) -> bool:
    return path == top or path.startswith(top.rstrip(b"/") + b"/")
