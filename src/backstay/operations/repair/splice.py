"""Put one whole object together from two damaged copies of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Final, TypeAlias

_BLOCK: Final = 4096  # bytes that disks lose together
MOST_PLACES: Final = 8  # places at which the copies differ; each one more doubles the work

Span: TypeAlias = tuple[int, int]


def spliced(one: bytes, two: bytes, is_whole: Callable[[bytes], bool]) -> bytes | None:
    """The object that `is_whole` accepts, made of parts of both; None when there is none, or too many to try.

    Where the copies agree they are taken to be right; each place where they differ is right in one or the other,
    unless it was damaged in both.
    """
    size = max(len(one), len(two))
    one, two = one.ljust(size, b"\0"), two.ljust(size, b"\0")
    spans = list(_differences(one, two))
    if not 0 < len(spans) <= MOST_PLACES:
        return None
    whole = bytearray(one)
    for choice in product((one, two), repeat=len(spans)):
        for (start, end), source in zip(spans, choice, strict=True):
            whole[start:end] = source[start:end]
        if is_whole(candidate := bytes(whole)):
            return candidate
    return None


def _differences(one: bytes, two: bytes) -> Iterator[Span]:
    """Runs of blocks that are not the same in both."""
    begun: int | None = None
    for at in range(0, len(one), _BLOCK):
        differs = one[at : at + _BLOCK] != two[at : at + _BLOCK]
        if differs and begun is None:
            begun = at
        elif not differs and begun is not None:
            yield begun, at
            begun = None
    if begun is not None:
        yield begun, len(one)
