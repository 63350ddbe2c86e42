"""A bell wakes who waits for it, until it is hushed."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from backstay.core.bell import Bell


@pytest.fixture
def bell() -> Iterator[Bell]:
    bell = Bell()
    yield bell
    bell.close()


def rings(bell: Bell) -> bool:
    return bool(select.select([bell.fileno()], [], [], 0)[0])


def test_it_rings_until_it_is_hushed(bell: Bell) -> None:
    assert not rings(bell)
    bell.hush()
    for _ in range(2):
        bell.ring()
        bell.ring()
        assert rings(bell)
        bell.hush()
        assert not rings(bell)


def test_who_hushes_in_the_middle_of_a_ring_hears_it_again(bell: Bell, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.eventfd_write

    def interrupted(descriptor: int, value: int) -> None:
        write(descriptor, value)
        bell.hush()

    monkeypatch.setattr(os, "eventfd_write", interrupted)
    bell.ring()
    assert rings(bell)
    bell.hush()
    assert not rings(bell)
