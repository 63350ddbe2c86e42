"""The store in memory."""

from __future__ import annotations

import pytest

from backstay.errors import InvalidRequest
from backstay.storage.backend import StorageBackend
from backstay.storage.memory import MemoryStorage, open_memory
from backstay.testing import FakeClock, StorageConformance


class TestMemoryStorage(StorageConformance):
    @pytest.fixture
    def backend(self) -> StorageBackend:
        return MemoryStorage()


def test_a_name_is_one_store() -> None:
    MemoryStorage.forget("shared")
    open_memory("memory:shared").store("a", b"x")
    assert open_memory("memory:shared").retrieve("a") == b"x"
    assert not open_memory("memory:other").exists("a")
    MemoryStorage.forget("shared")
    assert not open_memory("memory:shared").exists("a")


def test_without_a_name_each_is_its_own() -> None:
    MemoryStorage().store("a", b"x")
    assert not MemoryStorage().exists("a")


def test_memory_needs_a_name_in_an_address() -> None:
    with pytest.raises(InvalidRequest, match="needs a name"):
        open_memory("memory:")


def test_times_come_from_the_clock() -> None:
    clock = FakeClock()
    store = MemoryStorage(clock=clock)
    clock.advance(5)
    store.store("a", b"x")
    assert store.stat("a").modified_ns == clock.now_ns()
