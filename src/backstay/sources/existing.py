"""Whether a target already holds what a restore would write."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from typing import Final, Protocol

from backstay.repository.nodes import Node
from backstay.sources.closed_items import open_file
from backstay.sources.extents import Extents, data_extents
from backstay.sources.restore_errors import failure

_BLOCK: Final = 1 << 20


class Place(Protocol):
    """An open directory of a target."""

    @property
    def fd(self) -> int: ...

    @property
    def path(self) -> bytes: ...

    def lstat(self, name: bytes) -> os.stat_result | None: ...


def existing_equals(
    directory: Place, name: bytes, node: Node, read_sha256: bool = True, *, info: os.stat_result | None = None
) -> bool:
    """Whether what is there holds what the node says; owners, modes and times are not compared.

    With `read_sha256` files are read and compared by digest, else by size alone. `info` says which item is meant, when
    that is known.
    """
    info = info or directory.lstat(name)
    if info is None or stat.S_IFMT(info.st_mode) != stat.S_IFMT(node.mode):
        return False
    if node.is_file:
        return info.st_size == node.size and (not read_sha256 or _same_bytes(directory, name, node, info))
    if node.is_symlink:
        return _link_target(directory, name) == node.target
    if stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode):
        return info.st_rdev == node.device
    return True


def _link_target(directory: Place, name: bytes) -> bytes | None:
    try:
        return os.readlink(name, dir_fd=directory.fd)
    except OSError:
        return None  # gone or replaced a moment ago, so not equal


def _same_bytes(directory: Place, name: bytes, node: Node, info: os.stat_result) -> bool:
    """Compare the digest of the data, which leaves holes out, and then look that the holes hold nothing."""
    fd = -1
    try:
        fd = open_file(name, directory.fd)
        if not os.path.samestat(os.fstat(fd), info):
            return False  # replaced a moment ago
        digest = hashlib.sha256()
        for start, length in ((0, node.size),) if node.extents is None else node.extents:
            for block in _blocks(fd, start, length):
                digest.update(block)
        return digest.digest() == node.sha256 and (node.extents is None or _holes_are_empty(fd, node))
    except PermissionError:
        return False  # what nobody may read is no proof
    except OSError as error:
        raise failure(error, directory.path + b"/" + name, "read") from error
    finally:
        if fd >= 0:
            os.close(fd)


def _holes_are_empty(fd: int, node: Node) -> bool:
    held = data_extents(fd, node.size)
    outside = _outside(((0, node.size),) if held is None else held, node.extents or ())
    return not any(any(block) for start, length in outside for block in _blocks(fd, start, length))


def _outside(held: Extents, extents: Extents) -> Iterator[tuple[int, int]]:
    """The parts of `held` that lie in no extent, as (offset, length)."""
    following = 0
    for first, length in held:
        start, end = first, first + length
        while following < len(extents) and sum(extents[following]) <= start:
            following += 1
        for place in range(following, len(extents)):
            low, size = extents[place]
            if low >= end:
                break
            if start < low:
                yield start, low - start
            start = max(start, low + size)
        if start < end:
            yield start, end - start


def _blocks(fd: int, start: int, length: int) -> Iterator[bytes]:
    end = start + length
    while start < end and (block := os.pread(fd, min(_BLOCK, end - start), start)):
        yield block
        start += len(block)
