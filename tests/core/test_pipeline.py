"""Threads that work ahead, and threads that step back for others."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator

import pytest

from backstay.core.pipeline import Workers, read_ahead


def test_items_come_in_order_whatever_the_depth() -> None:
    for depth in (1, 2, 7):
        assert list(read_ahead(iter(range(100)), depth=depth)) == list(range(100))
    assert list(read_ahead(iter(()), depth=1)) == []


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_no_more_is_taken_than_the_depth_and_the_one_in_hand(depth: int) -> None:
    taken, reached = 0, threading.Event()

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(50):
            taken += 1
            if taken > depth:
                reached.set()
            yield number

    ahead = read_ahead(items(), depth=depth)
    for number in range(50 - depth - 1):
        reached.clear()
        assert next(ahead) == number
        if number == 0:
            assert reached.wait(10)
        assert taken <= number + 1 + depth + 1
    ahead.close()  # type: ignore[attr-defined]


def test_an_error_is_raised_behind_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("gone")

    ahead = read_ahead(items(), depth=5)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(OSError, match="gone"):
        next(ahead)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("read", [0, 1, 4])
def test_closing_stops_the_thread_though_it_waits_for_room(depth: int, read: int) -> None:
    before, ended = set(threading.enumerate()), threading.Event()

    def items() -> Iterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            ended.set()

    source = items()
    ahead = read_ahead(source, depth=depth)
    assert [next(ahead) for _ in range(read)] == list(range(read))
    ahead.close()  # type: ignore[attr-defined]
    assert set(threading.enumerate()) <= before
    source.close()  # type: ignore[attr-defined]
    assert ended.is_set() == (read > 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
def test_threads_that_yield_have_less_priority_than_who_gives_them_work() -> None:
    def mine(_: None) -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = mine(None)
    with Workers(2, "seal", yielding=True) as yielding, Workers(1, "equal") as equal:
        assert {yielding.submit(mine, None).result() for _ in range(8)} == {min(before + 3, 19)}
        assert equal.submit(mine, None).result() == before
    assert mine(None) == before
