"""Backs up files and directories of this machine, walking by directory descriptors."""

from __future__ import annotations

import errno
import os
import stat
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Final

from backstay.core.clock import Clock
from backstay.core.names import printable
from backstay.errors import InvalidRequest, NotFound
from backstay.repository.nodes import Node
from backstay.sources.extents import Extents, data_extents
from backstay.sources.file_stream import FileStream, may_have_holes
from backstay.sources.filters import Filters
from backstay.sources.kernel import CLOSED, raise_descriptor_limit
from backstay.sources.metadata import Owners, Volume, Xattrs, read_xattrs
from backstay.sources.named_paths import NOTHING_NAMED, NamedPaths
from backstay.sources.source import NEVER_SAME, PAGE_ENTRIES, Capture, Problem, Stat

CACHE_TAG: Final = b"CACHEDIR.TAG"
CACHE_SIGNATURE: Final = b"Signature: 8a477f597d28d172789f06886806bc55"

_READ_ATTEMPTS: Final = 3  # for a small file that changes while it is read
_ENCODING: Final = sys.getfilesystemencoding()
_ON_ERROR: Final = sys.getfilesystemencodeerrors()
# O_NONBLOCK: a FIFO that took a file's place must not block; O_NOFOLLOW: nor a symlink lead elsewhere.
_OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_OPEN_DIRECTORY: Final = _OPEN_FILE | os.O_DIRECTORY
_NOT_WHAT_IT_WAS: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ENOTDIR, errno.EISDIR, errno.ESPIPE})
_KINDS: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


class EntryChanged(OSError):
    """An entry became something else between being listed and being read."""

    def __init__(self, path: bytes, mode: int) -> None:
        was = _KINDS.get(stat.S_IFMT(mode), "item")
        super().__init__(errno.ESTALE, f"was a {was} when it was listed and is none any more", path)


class FilesystemSource:
    """What lies under some paths of this machine.

    Paths are made absolute and symlinks on the way to them are resolved, so that the snapshot holds real places
    and restores into them; a path that is itself a symlink is stored as one. Paths that were named are backed up
    whatever the filters say; filters choose among what lies below.
    """

    kind = "filesystem"

    def __init__(self, paths: Sequence[bytes], *, filters: Filters, clock: Clock) -> None:
        self.problems: list[Problem] = []
        self.paths: Sequence[bytes] = tuple(dict.fromkeys(map(_absolute, paths)))
        self.filters = filters
        self.clock = clock
        self.owners = Owners()
        self._volumes: dict[int, Volume] = {}
        self._named = NamedPaths.of(filter(None, map(self._real_place, self.paths)))
        if self._named is NOTHING_NAMED:
            raise _nothing_to_back_up(self.problems)
        raise_descriptor_limit()

    def root(self) -> OpenDirectory:
        """The directory `/` of the snapshot; holds only what leads to the source's paths."""
        return OpenDirectory(self, open_quietly(b"/", _OPEN_DIRECTORY), b"/", self._named)

    def volume(self, fd: int, device: int) -> Volume:
        """The file system that an open directory lies on."""
        if device not in self._volumes:
            self._volumes[device] = Volume.of(fd, device)
        return self._volumes[device]

    def report(self, path: bytes, error: OSError) -> None:
        """Add to `problems`; safe from any thread."""
        self.problems.append(Problem(path, (error.strerror or str(error)).lower()))

    def _real_place(self, path: bytes) -> bytes | None:
        parent, name = os.path.split(path)
        try:
            place = os.path.realpath(parent).rstrip(b"/") + b"/" + name
            os.lstat(place)
        except OSError as error:
            self.report(path, error)
            return None
        return place


def _absolute(path: bytes) -> bytes:
    if not path or b"\0" in path:
        raise InvalidRequest(f"cannot back up {printable(path)!r}", cause="no file has such a name")
    whole = os.path.normpath(path if path.startswith(b"/") else os.fsencode(Path.cwd()) + b"/" + path)
    return b"/" + whole.lstrip(b"/")  # normpath leaves two leading slashes as they are


def _nothing_to_back_up(problems: Sequence[Problem]) -> Exception:
    if not problems:
        return InvalidRequest("nothing to back up", cause="no path was given")
    cause = "; ".join(f"{printable(problem.path)}: {problem.message}" for problem in problems[:5])
    return NotFound("none of the paths to back up exists", cause=cause, hint="check the paths")


class OpenDirectory:
    """One directory being walked; `named` are the source's paths that lie below it."""

    __slots__ = ("_fd", "_home", "_only", "_prefix", "_source", "_volume", "named", "path")

    def __init__(
        self, source: FilesystemSource, fd: int, path: bytes, named: NamedPaths, home: int | None = None
    ) -> None:
        """`home` is the device that a parent with all its children lies on; None below directories that only lead."""
        self._source = source
        self._fd = fd
        self.path = path
        self.named = named
        self._prefix = path if path == b"/" else path + b"/"
        device = os.fstat(fd).st_dev
        self._volume = source.volume(fd, device)
        inside = home is not None and (home == device or not source.filters.one_file_system)
        self._home = device if named.whole else home if inside else None
        self._only = None if self._home is not None else sorted(named.below)

    def pages(self) -> Iterator[Sequence[Stat]]:
        """The entries that pass the filters, sorted by raw name; raises OSError when the listing is incomplete."""
        if self._only is not None:
            yield from self._examined_pages(self._only)
            return
        with os.scandir(self._fd) as entries:
            first = list(islice(entries, PAGE_ENTRIES))
            if len(first) < PAGE_ENTRIES:
                yield self._without_cache(self._examined(self._passing(first)))
                return
            # Names alone fit into memory for any number of entries; their stats do not.
            names = [_name(entry) for entry in self._passing(chain(first, entries))]
        del first
        names.sort()
        yield from self._examined_pages(self._without_cached_names(names))

    def capture(self, entry: Stat, *, small: int) -> Capture:
        """Everything about one entry; files of at most `small` bytes come with their data. Raises OSError."""
        if not stat.S_ISREG(entry[1]):
            return self._capture_other(entry)
        fd = -1
        try:
            fd = open_quietly(entry[0], _OPEN_FILE, self._fd)
            captured = self._capture_file(fd, entry, small)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            if error.errno in _NOT_WHAT_IT_WAS:
                raise EntryChanged(self._prefix + entry[0], entry[1]) from error
            raise
        if captured.stream is None:
            os.close(fd)
        return captured

    def enter(self, entry: Stat) -> OpenDirectory:
        """Open a child directory. Raises OSError."""
        name = entry[0]
        path = self._prefix + name
        try:
            fd = open_quietly(name, _OPEN_DIRECTORY, self._fd)
        except OSError as error:
            if error.errno in _NOT_WHAT_IT_WAS:
                raise EntryChanged(path, entry[1]) from error
            raise
        named = self.named.below.get(name, NOTHING_NAMED) if self.named.below else NOTHING_NAMED
        return OpenDirectory(self._source, fd, path, named, self._home)

    def close(self) -> None:
        """Let go of it; children that are open stay usable. May be called more than once."""
        fd, self._fd = self._fd, CLOSED
        if fd != CLOSED:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    # Listing

    def _passing(self, entries: Iterable[os.DirEntry[str]]) -> Iterable[os.DirEntry[str]]:
        filters = self._source.filters
        if filters.empty:
            return entries
        prefix, below, excludes = self._prefix, self.named.below, filters.excludes
        return (
            entry
            for entry in entries
            if not excludes(prefix + (name := _name(entry)), _is_directory(entry)) or name in below
        )

    def _examined(self, entries: Iterable[os.DirEntry[str]]) -> list[Stat]:
        """Stat every entry: the innermost loop of an unchanged backup."""
        rows: list[Stat] = []
        add = rows.append
        for entry in entries:
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError as error:
                self._not_examined(_name(entry), error)
                continue
            mode = info.st_mode
            add(
                (
                    entry.name.encode(_ENCODING, _ON_ERROR),
                    mode,
                    0 if mode & 0o170000 == 0o040000 else info.st_size,
                    info.st_mtime_ns,
                    info.st_ctime_ns,
                    info.st_ino,
                )
            )
        rows.sort()
        return rows

    def _examined_pages(self, names: Sequence[bytes]) -> Iterator[list[Stat]]:
        for start in range(0, len(names), PAGE_ENTRIES):
            rows: list[Stat] = []
            for name in names[start : start + PAGE_ENTRIES]:
                try:
                    rows.append(_row(name, os.stat(name, dir_fd=self._fd, follow_symlinks=False)))
                except OSError as error:
                    self._not_examined(name, error)
            yield rows

    def _not_examined(self, name: bytes, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError) or name in self.named.below:
            self._source.report(self._prefix + name, error)

    def _without_cache(self, rows: list[Stat]) -> list[Stat]:
        place = bisect_left(rows, (CACHE_TAG,))
        if place == len(rows) or rows[place][0] != CACHE_TAG or not self._is_cache():
            return rows
        return [row for row in rows if row[0] == CACHE_TAG or row[0] in self.named.below]

    def _without_cached_names(self, names: list[bytes]) -> list[bytes]:
        place = bisect_left(names, CACHE_TAG)
        if place == len(names) or names[place] != CACHE_TAG or not self._is_cache():
            return names
        return [name for name in names if name == CACHE_TAG or name in self.named.below]

    def _is_cache(self) -> bool:
        """Whether a program marked this directory as one it can fill again (bford.info/cachedir)."""
        if not self._source.filters.cachedir_tags or self.named.whole:
            return False
        try:
            fd = open_quietly(CACHE_TAG, _OPEN_FILE, self._fd)
        except OSError:
            return False  # a tag that cannot be read marks nothing: rather back up too much
        try:
            return stat.S_ISREG(os.fstat(fd).st_mode) and os.read(fd, len(CACHE_SIGNATURE)) == CACHE_SIGNATURE
        finally:
            os.close(fd)

    # Capturing

    def _capture_file(self, fd: int, entry: Stat, small: int) -> Capture:
        name, _, size, mtime, ctime, _ = entry
        asked, data, info = size, b"", None
        for _ in range(_READ_ATTEMPTS):
            if size > small:
                return self._open_stream(fd, entry)
            now = self._source.clock.now_ns()
            data = _read_small(fd, asked)
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise EntryChanged(self._prefix + name, entry[1])
            if size == info.st_size == len(data) and mtime == info.st_mtime_ns and ctime == info.st_ctime_ns:
                return self._small_file(fd, name, info, data, now)
            size, mtime, ctime = info.st_size, info.st_mtime_ns, info.st_ctime_ns
            asked = small  # its size may be no promise, as in /proc
        if info is None or len(data) > small:
            return self._open_stream(fd, entry)
        node = self._node(name, info, len(data), self._xattrs(fd, name))
        return Capture((name, info.st_mode, len(data), mtime, NEVER_SAME, info.st_ino), node, data)

    def _small_file(self, fd: int, name: bytes, info: os.stat_result, data: bytes, now: int) -> Capture:
        node = self._node(name, info, len(data), self._xattrs(fd, name))
        if may_have_holes(info):
            node.extents = data_extents(fd, info.st_size)
            if node.extents is not None:
                data = b"".join(data[start : start + length] for start, length in node.extents)
        return Capture(self._stat(name, info, now), node, data)

    def _open_stream(self, fd: int, entry: Stat) -> Capture:
        now = self._source.clock.now_ns()
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise EntryChanged(self._prefix + entry[0], entry[1])
        node = self._node(entry[0], info, info.st_size, None)
        stream = FileStream(fd, info, partial(self._streamed, fd, entry[0], now))
        node.extents = stream.extents
        return Capture(self._stat(entry[0], info, now), node, stream=stream)

    def _streamed(
        self, fd: int, name: bytes, now: int, info: os.stat_result, size: int, extents: Extents | None, steady: bool
    ) -> tuple[Stat, Node]:
        node = self._node(name, info, size, self._xattrs(fd, name))
        node.extents = extents
        return (self._stat(name, info, now) if steady else (*_row(name, info)[:4], NEVER_SAME, info.st_ino)), node

    def _capture_other(self, entry: Stat) -> Capture:
        name = entry[0]
        now = self._source.clock.now_ns()
        target = None
        if stat.S_ISLNK(entry[1]):
            target = self._link_target(entry)
        info = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        if stat.S_IFMT(info.st_mode) != stat.S_IFMT(entry[1]):
            raise EntryChanged(self._prefix + name, entry[1])
        # Through /proc, because items that cannot be opened for reading have attributes too.
        node = self._node(name, info, 0, self._xattrs(b"/proc/self/fd/%d/%s" % (self._fd, name), name))
        node.target = target
        if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
            node.device = info.st_rdev
        return Capture(self._stat(name, info, now), node)

    def _link_target(self, entry: Stat) -> bytes:
        try:
            return os.readlink(entry[0], dir_fd=self._fd)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise EntryChanged(self._prefix + entry[0], entry[1]) from error
            raise

    def _node(self, name: bytes, info: os.stat_result, size: int, xattrs: Xattrs | None) -> Node:
        mode, uid, gid, owners = info.st_mode, info.st_uid, info.st_gid, self._source.owners
        node = Node(name, mode, uid, gid, owners.user(uid), owners.group(gid), size, info.st_mtime_ns, xattrs=xattrs)
        if info.st_nlink > 1 and not stat.S_ISDIR(mode):
            node.links = self._volume.link_group(info)
        return node

    def _xattrs(self, item: int | bytes, name: bytes) -> Xattrs | None:
        try:
            return read_xattrs(item)
        except OSError as error:
            message = f"extended attributes: {(error.strerror or str(error)).lower()}"
            self._source.problems.append(Problem(self._prefix + name, message))
            return None

    def _stat(self, name: bytes, info: os.stat_result, now: int) -> Stat:
        row = _row(name, info)
        if self._volume.may_change_unseen(info.st_mtime_ns, info.st_ctime_ns, now):
            return (*row[:4], NEVER_SAME, row[5])
        return row


def open_quietly(name: bytes, flags: int, dir_fd: int | None = None) -> int:
    """Open for reading without touching the access time where that is allowed (owner or root)."""
    try:
        return os.open(name, flags | os.O_NOATIME, dir_fd=dir_fd)
    except PermissionError as error:
        if error.errno != errno.EPERM:
            raise
    return os.open(name, flags, dir_fd=dir_fd)


def _read_small(fd: int, size: int) -> bytes:
    """Up to one byte more than `size`: enough to see that a file has grown."""
    # pread, because it fails on a FIFO instead of taking bytes out of it.
    data = os.pread(fd, size + 1, 0)
    while len(data) < size and (more := os.pread(fd, size + 1 - len(data), len(data))):
        data += more
    return data


def _row(name: bytes, info: os.stat_result) -> Stat:
    mode = info.st_mode
    size = 0 if stat.S_ISDIR(mode) else info.st_size
    return name, mode, size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino


def _name(entry: os.DirEntry[str]) -> bytes:
    return entry.name.encode(_ENCODING, _ON_ERROR)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False  # the stat that follows reports it
