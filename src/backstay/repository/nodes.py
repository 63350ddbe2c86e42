"""One stored item of a directory listing, and its encoding (docs/format.md, "Listings")."""

from __future__ import annotations

import stat
from typing import Any, Final

import msgspec

MAX_NAME: Final = 4096  # bytes; Linux allows 255, other systems more
MAX_NODE: Final = 64 << 20  # bytes of one encoded node, content ids and xattrs included


class Content(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The ordered chunk ids that make one byte stream.

    `ids` holds 32 bytes per chunk. With `depth` 0 they name the stream's own chunks; with `depth` n > 0 they
    name chunks whose bytes, joined, are again such a list of depth n - 1.
    """

    depth: int
    ids: bytes


EMPTY: Final = Content(0, b"")


class Node(msgspec.Struct, array_like=True, gc=False):
    """What can be restored of one item; the field order is the format.

    `mode` is st_mode whole (type and permissions), `size` the logical length in bytes, `mtime_ns` nanoseconds
    since 1970, `extents` the (offset, length) pairs that hold data when the file has holes: `content` is then
    those ranges joined. `links` is the same 16 bytes for all names of one inode, None for a single name.
    `content` of a directory is its listing.
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

    @property
    def is_dir(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        return stat.S_ISLNK(self.mode)
