"""Where a file with holes holds data."""

from __future__ import annotations

import errno
import os
from typing import Final, TypeAlias

Extents: TypeAlias = tuple[tuple[int, int], ...]  # (offset, length), ascending, disjoint

MAX_EXTENTS: Final = 1 << 16  # a node names each; beyond this the smallest holes are stored as zeros
_FIRST_GAP: Final = 1 << 16


def data_extents(fd: int, size: int) -> Extents | None:
    """The ranges below `size` that hold data: () for one large hole, None when there are no holes to speak of."""
    found: list[tuple[int, int]] = []
    gap = 0
    position = 0
    try:
        while position < size and (start := _seek_data(fd, position)) is not None and start < size:
            position = min(os.lseek(fd, start, os.SEEK_HOLE), size)
            if found and start - sum(found[-1]) < gap:
                start, _ = found.pop()
            found.append((start, position - start))
            if len(found) > MAX_EXTENTS:
                found, gap = _without_small_holes(found, gap)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        return None  # this file system does not tell; reading the holes gives the same bytes
    return None if found == [(0, size)] or not size else tuple(found)


def _seek_data(fd: int, position: int) -> int | None:
    try:
        return os.lseek(fd, position, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole from here on
            return None
        raise


def _without_small_holes(found: list[tuple[int, int]], gap: int) -> tuple[list[tuple[int, int]], int]:
    """Join extents over ever larger holes until at most half the limit is left."""
    while len(found) > MAX_EXTENTS // 2:
        gap = max(2 * gap, _FIRST_GAP)
        joined: list[tuple[int, int]] = []
        for start, length in found:
            if joined and start - sum(joined[-1]) < gap:
                first = joined.pop()[0]
                joined.append((first, start + length - first))
            else:
                joined.append((start, length))
        found = joined
    return found, gap
