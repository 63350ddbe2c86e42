"""Content-defined (FastCDC) and fixed-size chunking of byte streams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from pyfastcdc import FastCDC

KIB: Final = 1024
MIB: Final = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class CdcSizes:
    """Least, average and greatest length in bytes of content-defined chunks."""

    least: int
    average: int
    greatest: int


@dataclass(frozen=True, slots=True)
class FixedSize:
    """The length in bytes of chunks that are cut without a look at their content."""

    size: int


Chunking: TypeAlias = CdcSizes | FixedSize

FILES: Final = CdcSizes(least=256 * KIB, average=1 * MIB, greatest=4 * MIB)
LISTINGS: Final = CdcSizes(least=16 * KIB, average=64 * KIB, greatest=256 * KIB)
DUMPS: Final = CdcSizes(least=16 * KIB, average=64 * KIB, greatest=256 * KIB)


class Chunker(Protocol):
    """Finds chunk ends; holds no state between calls."""

    window: int  # bytes worth reading at a time

    def cut(self, data: bytes | memoryview, *, last: bool) -> Iterator[memoryview]:
        """The chunks of `data` whose ends are certain; with `last` all of it. The rest goes before the next data."""
        ...


class ContentDefinedChunker:
    """FastCDC with normalised chunking, level 2 (Xia et al., USENIX ATC 2016), its gear table varied by a secret.

    The secret only raises the bar against fingerprinting by chunk lengths; lengths are hidden by encryption.
    """

    def __init__(self, sizes: CdcSizes, secret: int = 0) -> None:
        self.sizes, self.secret = sizes, secret
        self.window = 2 * sizes.greatest
        self._cdc = FastCDC(
            sizes.average,
            min_size=sizes.least,
            max_size=sizes.greatest,
            normalized_chunking=2,
            seed=secret,
        )

    def cut(self, data: bytes | memoryview, *, last: bool) -> Iterator[memoryview]:
        view = memoryview(data)
        if last and len(data) <= self.sizes.least:  # no cut is possible; spares listings a call each
            if data:
                yield view
            return
        size = len(data)
        for chunk in self._cdc.cut_buf(data):
            end = chunk.offset + chunk.length
            if end == size and not last:
                return  # it may end later: more data can follow
            yield view[chunk.offset : end]


class FixedChunker:
    """Chunks of one size, for data that changes in place (disk images, database pages)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.window = max(size, 8 * MIB // size * size)

    def cut(self, data: bytes | memoryview, *, last: bool) -> Iterator[memoryview]:
        view = memoryview(data)
        end = len(data) if last else len(data) // self.size * self.size
        for at in range(0, end, self.size):
            yield view[at : min(at + self.size, end)]


def chunker_of(chunking: Chunking, secret: int) -> Chunker:
    """The chunker of a chunking; `secret` varies what depends on content."""
    return FixedChunker(chunking.size) if isinstance(chunking, FixedSize) else ContentDefinedChunker(chunking, secret)


class StreamCutter:
    """Cuts a stream that arrives in pieces. Chunks are parts of these, or of copies: they stay as they are."""

    def __init__(self, chunker: Chunker) -> None:
        self._chunker = chunker
        self._rest = b""
        self._soon = chunker.window // 8  # bytes of a piece within which the chunk before it mostly ends

    def feed(self, data: bytes) -> Iterator[memoryview]:
        """The chunks that are certain after `data`."""
        first = self._across(data) if self._rest and len(data) > self._soon else None
        if first is None:
            yield from self._cut(self._rest + data if self._rest else data, last=False)
            return
        yield first
        yield from self._cut(memoryview(data)[len(first) - len(self._rest) :], last=False)

    def finish(self) -> Iterator[memoryview]:
        """The chunks that are left."""
        return self._cut(self._rest, last=True)

    def _across(self, data: bytes) -> memoryview | None:
        """The chunk that begins with what was left over, if it ends soon in `data`, which then is not copied whole."""
        joined = self._rest + data[: self._soon]
        first = next(self._chunker.cut(joined, last=False), None)
        return first if first is not None and len(first) >= len(self._rest) else None

    def _cut(self, data: bytes | memoryview, *, last: bool) -> Iterator[memoryview]:
        done = 0
        for chunk in self._chunker.cut(data, last=last):
            done += len(chunk)
            yield chunk
        self._rest = bytes(data[done:])
