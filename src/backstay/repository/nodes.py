"""One stored item of a directory listing, and its encoding (docs/format.md, "Listings")."""

from __future__ import annotations

import stat
from typing import Any, Final

import msgspec

from backstay.errors import CorruptedBackup

MAX_NAME: Final = 4096  # bytes; Linux allows 255, other systems more
MAX_NODE: Final = 64 << 20  # bytes of one encoded node, content ids and xattrs included
EARLIEST: Final = -(1 << 63)  # times, in ns since 1970: September of 1677
LATEST: Final = (1 << 64) - 1  # and July of 2554; between them lies what msgpack takes for an integer


_KINDS: Final = frozenset(
    (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK)
)
PATCHED: Final = 16  # added to the depth of a content that is a patch


class Content(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The ordered chunk ids that make one byte stream.

    `ids` holds 32 bytes per chunk. With `depth` 0 they name the stream's own chunks; with `depth` n > 0 they
    name chunks whose bytes, joined, are again such a list of depth n - 1. From `PATCHED` on they name a patch,
    with which another content becomes this one.
    """

    depth: int
    ids: bytes

    @property
    def is_patched(self) -> bool:
        """Whether the bytes are those of another content with changes."""
        return self.depth >= PATCHED

    @property
    def patch(self) -> Content:
        """The stream that says which changes to which content, of one that is patched."""
        return Content(self.depth - PATCHED, self.ids)


EMPTY: Final = Content(0, b"")


def storable_time(ns: int) -> int:
    """The nearest time that a node can hold. Some file systems hold others, which anybody may give to a file."""
    return min(max(ns, EARLIEST), LATEST)


class Node(msgspec.Struct, array_like=True, gc=False):
    """What can be restored of one item; the field order is the format.

    `mode` is st_mode whole (type and permissions), `size` the logical length in bytes, `mtime_ns` nanoseconds
    since 1970, `extents` the (offset, length) pairs that hold data when the file has holes: `content` is then
    those ranges joined. `links` is the same 16 bytes for all names of one inode, None for a single name.
    `content` of a directory is its listing. `sha256` is that of the content: the file, or its extents joined.
    """

    name: bytes
    mode: int
    uid: int
    gid: int
    user: str
    group: str
    size: int
    mtime_ns: int
    content: Content | None = None
    sha256: bytes | None = None
    target: bytes | None = None
    device: int | None = None
    links: bytes | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] | None = None
    extents: tuple[tuple[int, int], ...] | None = None
    extra: dict[str, Any] | None = None

    def check(self) -> None:
        """Raises CorruptedBackup for what no file system can have held."""
        name = self.name
        if not 0 < len(name) <= MAX_NAME or b"/" in name or b"\0" in name or name == b"." or name == b"..":
            raise CorruptedBackup("a listing holds an impossible name", cause=repr(name[:80]))
        if not (0 <= self.size < 1 << 63 and 0 <= self.mode < 1 << 32 and 0 <= self.uid < 1 << 32):
            raise CorruptedBackup("a listing holds an impossible size, mode or owner", cause=repr(name[:80]))
        if not 0 <= self.gid < 1 << 32:
            raise CorruptedBackup("a listing holds an impossible group", cause=repr(name[:80]))
        if (self.sha256 is not None and len(self.sha256) != 32) or (self.links is not None and len(self.links) != 16):
            raise CorruptedBackup("a listing holds a malformed digest", cause=repr(name[:80]))
        if self.extents is not None:
            self._check_extents()

    def check_restorable(self, stored: int | None) -> None:
        """Raises CorruptedBackup for what can be read and never be made; `stored` bytes of data, if that is known."""
        kind = stat.S_IFMT(self.mode)
        if kind not in _KINDS or self.mode >> 16:
            raise CorruptedBackup("it is of a kind that no file system has", cause=f"mode {self.mode:#o}")
        if kind == stat.S_IFLNK and (not self.target or b"\0" in self.target):
            raise CorruptedBackup("it is a symlink to an impossible place", cause=repr((self.target or b"")[:80]))
        if kind in (stat.S_IFCHR, stat.S_IFBLK) and not (self.device is not None and 0 <= self.device < 1 << 63):
            raise CorruptedBackup("it is a device with an impossible number", cause=str(self.device))
        if kind == stat.S_IFREG and stored is not None and stored != self.data_size:
            cause = f"{stored} bytes, not {self.data_size}"
            raise CorruptedBackup("its size is not that of its content", cause=cause)

    def _check_extents(self) -> None:
        end = 0
        for start, length in self.extents or ():
            if start < end or length <= 0 or start + length > self.size:
                raise CorruptedBackup("a listing holds impossible extents", cause=repr(self.name[:80]))
            end = start + length

    @property
    def data_size(self) -> int:
        """Bytes of data, holes left out."""
        return self.size if self.extents is None else sum(length for _, length in self.extents)

    @property
    def link_group(self) -> bytes | None:
        """What the names of one inode have in common; those that were read with other bytes are files of their own."""
        return None if self.links is None else self.links + (self.sha256 or b"")

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)
