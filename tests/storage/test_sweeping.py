"""What interrupted stores left behind is swept by the clock of the store, not by that of this machine."""

from __future__ import annotations

import pytest

from backstay.errors import InsufficientSpace
from backstay.storage.backend import Buffer
from backstay.storage.memory import MemoryStorage
from backstay.storage.sweeping import outlived
from backstay.testing import FakeClock

HOUR_NS = 3600 * 10**9


class FullStorage(MemoryStorage):
    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        raise InsufficientSpace(f"cannot store {name}")


@pytest.mark.parametrize("ahead_s", [-365 * 86400, 365 * 86400])
def test_age_goes_by_the_clock_of_the_store(ahead_s: int) -> None:
    clock = FakeClock()
    clock.jump(ahead_s)
    store, now = MemoryStorage(clock=clock), clock.now_ns()
    found = [("young", now - HOUR_NS // 2), ("old", now - 2 * HOUR_NS), ("unknown", 0)]
    assert outlived(store, found, 3600) == ["old"]
    assert [*store.list()] == []


def test_the_clock_is_not_asked_without_need() -> None:
    assert outlived(FullStorage(), [("unknown", 0)], 3600) == []


def test_a_full_store_is_as_late_as_the_newest_file() -> None:
    found = [("newest", 9 * HOUR_NS), ("young", 8 * HOUR_NS + 1), ("old", 8 * HOUR_NS)]
    assert outlived(FullStorage(), found, 3600) == ["old"]
