"""What was asked of a store can be told."""

from __future__ import annotations

import pytest

from backstay.errors import ObjectExists, ObjectNotFound, StorageUnavailable
from backstay.storage.backend import Buffer, StorageBackend
from backstay.storage.memory import MemoryStorage
from backstay.storage.metered import Metered
from backstay.testing import FakeClock, Fault, FaultyBackend, StorageConformance


class Slow(MemoryStorage):
    """Each store takes a second per byte."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self.passing = clock

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        self.passing.advance(len(data))
        super().store(name, data, overwrite=overwrite)


class TestMetered(StorageConformance):
    @pytest.fixture
    def backend(self) -> StorageBackend:
        return Metered(MemoryStorage(), clock=FakeClock())


def test_calls_bytes_and_seconds_are_counted() -> None:
    clock = FakeClock()
    store = Metered(Slow(clock), clock=clock)
    store.store("a", b"123")
    store.store("b", b"12345")
    assert store.retrieve("b", start=1, length=2) == b"23"
    assert len(list(store.list())) == 2
    store.stat("a")
    store.exists("a")
    store.delete("a")
    figures = store.snapshot()
    stored = figures["store"]
    assert (stored.calls, stored.bytes, stored.seconds, stored.longest, stored.errors) == (2, 8, 8.0, 5.0, {})
    assert (figures["retrieve"].calls, figures["retrieve"].bytes) == (1, 2)
    assert (figures["list"].calls, figures["list"].items) == (1, 2)
    assert (figures["stat"].calls, figures["delete"].calls) == (2, 1)


def test_errors_are_counted_by_their_code() -> None:
    faulty = FaultyBackend(MemoryStorage())
    store = Metered(faulty, clock=FakeClock())
    store.store("a", b"")
    with pytest.raises(ObjectExists):
        store.store("a", b"x")
    with pytest.raises(ObjectNotFound):
        store.retrieve("b")
    faulty.script(Fault(kind="incomplete_listing", operation="list"))
    with pytest.raises(StorageUnavailable):
        list(store.list())
    figures = store.snapshot()
    assert figures["store"].errors == {"ObjectExists": 1}
    assert (figures["store"].calls, figures["store"].bytes) == (2, 0)
    assert figures["retrieve"].errors == {"ObjectNotFound": 1}
    assert figures["list"].errors == {"StorageUnavailable": 1}


def test_a_snapshot_stays_as_it_is() -> None:
    store = Metered(MemoryStorage(), clock=FakeClock())
    before = store.snapshot()
    store.store("a", b"")
    assert before["store"].calls == 0
