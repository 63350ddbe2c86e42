"""Reads single entries of an open directory: their bytes, attributes and owners, all of one moment."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from functools import partial
from typing import Final

from backstay.core.clock import Clock, datetime_from_ns
from backstay.repository.nodes import Node, storable_time
from backstay.sources.exhaustion import is_exhaustion
from backstay.sources.extents import Extents, data_extents
from backstay.sources.file_stream import FileStream, may_have_holes
from backstay.sources.metadata import Owners, Volume, read_xattrs
from backstay.sources.refusals import words_of
from backstay.sources.source import NEVER_SAME, Capture, Stat

_PIECE: Final = 1 << 20  # bytes; files of the kernel take the memory for all that is asked for, and refuse 4 MiB
_READ_ATTEMPTS: Final = 3  # for a small file that changes while it is read
# O_NONBLOCK: a FIFO that took a file's place must not block; O_NOFOLLOW: nor a symlink lead elsewhere.
OPEN_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
NOT_WHAT_IT_WAS: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ENOTDIR, errno.EISDIR, errno.ESPIPE})
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


class EntryReader:
    """Captures entries of one directory, whose descriptor `fd` it borrows; any thread may call it.

    `lacks` is told (path, message) of what a captured entry has and its node has not; it is tried again each time.
    """

    __slots__ = ("_clock", "_lacks", "_owners", "_prefix", "fd", "volume")

    def __init__(
        self,
        fd: int,
        path: bytes,
        *,
        volume: Volume,
        owners: Owners,
        clock: Clock,
        lacks: Callable[[bytes, str], None],
    ) -> None:
        self.fd = fd
        self._prefix = path if path == b"/" else path + b"/"
        self.volume, self._owners, self._clock, self._lacks = volume, owners, clock, lacks

    def capture(self, entry: Stat, *, small: int) -> Capture:
        """Everything about one entry; files of at most `small` bytes come with their data. Raises OSError."""
        if not stat.S_ISREG(entry[1]):
            return self._capture_other(entry)
        fd = -1
        try:
            fd = open_quietly(entry[0], OPEN_FILE, self.fd)
            captured = self._capture_file(fd, entry, small)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            if error.errno in NOT_WHAT_IT_WAS:
                raise EntryChanged(self._prefix + entry[0], entry[1]) from error
            raise
        if captured.stream is None:
            os.close(fd)
        return captured

    def _capture_file(self, fd: int, entry: Stat, small: int) -> Capture:
        name, _, size, mtime, ctime, _ = entry
        claimed, data, info = True, b"", None
        for _ in range(_READ_ATTEMPTS):
            if size > small:
                return self._open_stream(fd, entry)
            now = self._clock.now_ns()
            data = _read_small(fd, size) if claimed else _read_unclaimed(fd, small)
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise EntryChanged(self._prefix + name, entry[1])
            if size == info.st_size == len(data) and mtime == info.st_mtime_ns and ctime == info.st_ctime_ns:
                return self._small_file(fd, name, info, data, now)
            size, mtime, ctime = info.st_size, info.st_mtime_ns, info.st_ctime_ns
            claimed = False  # its size may be no promise, as in /proc
        if info is None or len(data) > small:
            return self._open_stream(fd, entry, to_end=size <= small)
        node = self._node(name, info, len(data))
        self._complete(node, info, fd)
        return Capture((name, info.st_mode, len(data), mtime, NEVER_SAME, info.st_ino), node, data)

    def _small_file(self, fd: int, name: bytes, info: os.stat_result, data: bytes, now: int) -> Capture:
        node = self._node(name, info, len(data))
        whole = self._complete(node, info, fd)
        if may_have_holes(info):
            node.extents = data_extents(fd, info.st_size)
            if node.extents is not None:
                data = b"".join(data[start : start + length] for start, length in node.extents)
        return Capture(self._stat(name, info, now, whole=whole), node, data)

    def _open_stream(self, fd: int, entry: Stat, *, to_end: bool = False) -> Capture:
        now = self._clock.now_ns()
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise EntryChanged(self._prefix + entry[0], entry[1])
        node = self._node(entry[0], info, info.st_size)
        stream = FileStream(fd, info, partial(self._streamed, fd, entry[0], now), to_end=to_end)
        node.extents = stream.extents
        return Capture(self._stat(entry[0], info, now, whole=True), node, stream=stream)

    def _streamed(
        self, fd: int, name: bytes, now: int, info: os.stat_result, size: int, extents: Extents | None, steady: bool
    ) -> tuple[Stat, Node]:
        node = self._node(name, info, size)
        whole = self._complete(node, info, fd)
        node.extents = extents
        if steady:
            return self._stat(name, info, now, whole=whole), node
        return (name, info.st_mode, size, node.mtime_ns, NEVER_SAME, info.st_ino), node

    def _capture_other(self, entry: Stat) -> Capture:
        name = entry[0]
        now = self._clock.now_ns()
        target = None
        if stat.S_ISLNK(entry[1]):
            target = self._link_target(entry)
        info = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        if stat.S_IFMT(info.st_mode) != stat.S_IFMT(entry[1]):
            raise EntryChanged(self._prefix + name, entry[1])
        node = self._node(name, info, 0)
        # Through /proc, because items that cannot be opened for reading have attributes too.
        whole = self._complete(node, info, b"/proc/self/fd/%d/%s" % (self.fd, name))
        node.target = target
        if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
            node.device = info.st_rdev
        if stat.S_ISDIR(info.st_mode) and row_of(name, info) != entry:
            whole = False  # what was entered may be another than this one, which the next run must not take for known
        return Capture(self._stat(name, info, now, whole=whole), node)

    def capture_itself(self, name: bytes, info: os.stat_result, path: bytes) -> Capture:
        """The directory whose entries are read, by its name, its state and its path. Raises OSError."""
        node = self._node(name, info, 0)
        # Through /proc, because one that can only be passed through has attributes too.
        whole = self._complete(node, info, b"/proc/self/fd/%d/." % self.fd, path)
        return Capture(self._stat(name, info, self._clock.now_ns(), whole=whole), node)

    def _link_target(self, entry: Stat) -> bytes:
        try:
            return os.readlink(entry[0], dir_fd=self.fd)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise EntryChanged(self._prefix + entry[0], entry[1]) from error
            raise

    def _node(self, name: bytes, info: os.stat_result, size: int) -> Node:
        mode, uid, gid, owners, mtime = info.st_mode, info.st_uid, info.st_gid, self._owners, info.st_mtime_ns
        if mtime >> 63:  # nearly none
            mtime = storable_time(mtime)
        node = Node(name, mode, uid, gid, owners.user(uid), owners.group(gid), size, mtime)
        if info.st_nlink > 1 and not stat.S_ISDIR(mode):
            node.links = self.volume.link_group(info)
        return node

    def _complete(self, node: Node, info: os.stat_result, item: int | bytes, path: bytes = b"") -> bool:
        """Add the extended attributes; whether the node then holds all of the item. What it lacks is told.

        `path` is that of the item, if it is no entry.
        """
        whole = True
        try:
            node.xattrs = read_xattrs(item)
        except OSError as error:
            if is_exhaustion(error):
                raise
            self._lacks(path or self._prefix + node.name, f"its extended attributes are left out: {words_of(error)}")
            whole = False
        if node.mtime_ns != info.st_mtime_ns:
            stored = datetime_from_ns(node.mtime_ns)
            self._lacks(path or self._prefix + node.name, f"its time is out of range, and stored as {stored:%Y-%m-%d}")
            whole = False
        return whole

    def _stat(self, name: bytes, info: os.stat_result, now: int, *, whole: bool) -> Stat:
        row = row_of(name, info)
        if not whole or self.volume.may_change_unseen(info.st_mtime_ns, info.st_ctime_ns, now):
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


def _read_unclaimed(fd: int, most: int) -> bytes:
    """The same, of a file that may hold anything."""
    data = b""
    while len(data) <= most and (more := os.pread(fd, min(_PIECE, most + 1 - len(data)), len(data))):
        data += more
    return data


def row_of(name: bytes, info: os.stat_result) -> Stat:
    mode = info.st_mode
    size = 0 if stat.S_ISDIR(mode) else info.st_size
    mtime, ctime = info.st_mtime_ns, info.st_ctime_ns
    if (mtime | ctime) >> 63:
        mtime, ctime = storable_time(mtime), storable_time(ctime)
    return name, mode, size, mtime, ctime, info.st_ino
