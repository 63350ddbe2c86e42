"""One whole object from two damaged ones."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from backstay.operations.repair.splice import MOST_PLACES, spliced

WHOLE = random.Random(1).randbytes(40 * 4096 + 17)


def changed(*places: int, length: int = len(WHOLE)) -> bytes:
    data = bytearray(WHOLE)
    for at in places:
        data[at] ^= 0xFF
    return bytes(data[:length])


def is_it(data: bytes) -> bool:
    return data == WHOLE


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (changed(0), changed(len(WHOLE) - 1)),
        (changed(0, 5, 4096 * 3), changed(4096 * 7, 4096 * 9)),
        (changed(10), changed(length=4096 * 30)),
        (changed(length=4096 * 39), changed(100, 200)),
        (changed(*range(0, 4096 * MOST_PLACES, 8192)), changed(4096 * 39)),
    ],
)
def test_what_is_right_in_one_or_the_other_is_found(one: bytes, two: bytes) -> None:
    assert spliced(one, two, is_it) == WHOLE
    assert spliced(two, one, is_it) == WHOLE


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (changed(5), changed(6)),  # the same block
        (changed(5), changed(5)),
        (b"", b""),
        (b"", changed(5)),
    ],
)
def test_what_is_damaged_in_both_is_not(one: bytes, two: bytes) -> None:
    assert spliced(one, two, is_it) is None


def test_too_many_differences_are_not_tried() -> None:
    def never(data: bytes) -> bool:
        raise AssertionError("tried")

    check: Callable[[bytes], bool] = never
    assert spliced(changed(*range(0, 4096 * 39, 8192)), WHOLE, check) is None
