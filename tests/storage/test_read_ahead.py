"""Reading ahead gives the same bytes in fewer requests, and hides nothing."""

from __future__ import annotations

import random
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from backstay.errors import ObjectNotFound, StorageUnavailable
from backstay.storage import read_ahead
from backstay.storage.backend import StorageBackend
from backstay.storage.memory import MemoryStorage
from backstay.storage.read_ahead import ReadAhead
from backstay.testing.conformance import StorageConformance

PACK = "packs/ab/" + "ab" * 32


class Counting(MemoryStorage):
    """Counts what it is asked for, and fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[tuple[int, int | None]] = []
        self.fails = 0

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        self.reads.append((start, length))
        if self.fails:
            self.fails -= 1
            raise StorageUnavailable("the line is down")
        return super().retrieve(name, start=start, length=length)


class TestReadAhead(StorageConformance):
    """It is a backend like any other."""

    @pytest.fixture
    def backend(self, monkeypatch: pytest.MonkeyPatch) -> StorageBackend:
        monkeypatch.setattr(read_ahead, "PIECE", 300)
        monkeypatch.setattr(read_ahead, "AHEAD_OF", "")
        return ReadAhead(MemoryStorage())


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Counting:
    monkeypatch.setattr(read_ahead, "PIECE", 1000)
    return Counting()


def test_any_range_is_as_it_was_stored(far: Counting) -> None:
    rng = random.Random(5)  # repeatable
    data = rng.randbytes(10_321)
    far.store(PACK, data)
    near = ReadAhead(far)
    for _ in range(500):
        start = rng.randrange(len(data) + 1)
        length = rng.randrange(min(1500, len(data) - start) + 1)
        assert near.retrieve(PACK, start=start, length=length) == data[start : start + length]
    assert near.retrieve(PACK) == data


def test_neighbours_cost_one_request(far: Counting) -> None:
    far.store(PACK, bytes(5000))
    near = ReadAhead(far)
    for start in range(0, 5000, 100):
        near.retrieve(PACK, start=start, length=100)
    assert far.reads == [(start, 1000) for start in range(0, 5000, 1000)]


def test_memory_is_bounded(far: Counting) -> None:
    far.store(PACK, bytes(50_000))
    near = ReadAhead(far)
    for _ in range(2):
        for start in range(0, 50_000, 1000):
            near.retrieve(PACK, start=start, length=10)
    assert len(far.reads) == 100  # nothing of the first round was kept
    assert len(near._pieces) == read_ahead.KEPT


def test_small_objects_and_whole_packs_are_read_as_asked_for(far: Counting) -> None:
    far.store("index/x", bytes(100))
    far.store(PACK, bytes(5000))
    near = ReadAhead(far)
    near.retrieve("index/x", start=5, length=10)
    near.retrieve(PACK)
    near.retrieve(PACK, start=10, length=4000)
    assert far.reads == [(5, 10), (0, None), (10, 4000)]


def test_a_failure_is_told_and_not_kept(far: Counting) -> None:
    far.store(PACK, bytes(5000))
    near = ReadAhead(far)
    far.fails = 1
    with pytest.raises(StorageUnavailable, match="down"):
        near.retrieve(PACK, start=10, length=10)
    assert near.retrieve(PACK, start=10, length=10) == bytes(10)


def test_a_thread_that_is_stopped_stops_nobody_who_waits_for_the_same_piece(
    far: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetching, waiting = threading.Event(), threading.Event()

    class Awaited(Future[bytes]):
        def result(self, timeout: float | None = None) -> bytes:
            waiting.set()
            return super().result(timeout)

    class Stopped(Counting):
        """The first who reads is stopped by Ctrl-C, when another one waits for what he reads."""

        def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
            if not fetching.is_set():
                fetching.set()
                assert waiting.wait(60)
                raise KeyboardInterrupt
            return super().retrieve(name, start=start, length=length)

    monkeypatch.setattr(read_ahead, "Future", Awaited)
    stopped = Stopped()
    stopped.store(PACK, bytes(5000))
    near = ReadAhead(stopped)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(near.retrieve, PACK, start=10, length=10)
        assert fetching.wait(60)
        second = pool.submit(near.retrieve, PACK, start=20, length=10)
        assert second.result(20) == bytes(10)
        assert isinstance(first.exception(20), KeyboardInterrupt)
    assert stopped.reads == [(0, 1000)]


def test_a_pack_that_is_deleted_is_gone(far: Counting) -> None:
    far.store(PACK, bytes(5000))
    near = ReadAhead(far)
    near.retrieve(PACK, start=10, length=10)
    near.delete(PACK)
    with pytest.raises(ObjectNotFound):
        near.retrieve(PACK, start=10, length=10)


def test_threads_that_want_the_same_piece_share_it(far: Counting) -> None:
    data = random.Random(9).randbytes(5000)
    far.store(PACK, data)
    near = ReadAhead(far)
    with ThreadPoolExecutor(8) as pool:
        found = [*pool.map(lambda n: near.retrieve(PACK, start=n, length=50), range(900))]
    assert found == [data[n : n + 50] for n in range(900)]
    assert far.reads == [(0, 1000)]
