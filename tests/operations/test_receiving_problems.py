"""Alarms of a receiver: when its slot fills up, when it stores nothing, when it sees to no commits; and only then."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backstay.operations.clusters.receiving_problems import PATIENCE_S, receiving_problems
from backstay.repository.repository import Environment, Repository
from backstay.sources.postgres.receiver import Slot
from backstay.testing import FakeClock, MemoryStorage
from tests.operations.copies import SECRET

SYSTEM = 7313317639881522009
LIMIT = 1 << 30


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def repository(clock: FakeClock) -> Iterator[Repository]:
    """With WAL that was stored an hour ago."""
    environment = Environment(clock=clock)
    with Repository.create(MemoryStorage(clock=clock), SECRET, environment=environment) as repository:
        repository.wal.store_part(SYSTEM, "0000000100000000000000AB", 0, b"log")
        clock.advance(3600)
        yield repository


def problems(
    repository: Repository,
    *,
    status: str = "reserved",
    left: int | None = LIMIT,
    is_active: bool = True,
    waiting: int = 0,
    lag_s: float | None = 0.0,
    heartbeat: float = 900.0,
) -> str:
    slot = Slot("backstay_main", 0, status, left, is_active)
    found = receiving_problems(repository, SYSTEM, slot, limit=LIMIT, waiting=waiting, lag_s=lag_s, heartbeat=heartbeat)
    return "; ".join(found)


def test_a_slot_is_told_when_half_of_what_it_may_keep_is_used(repository: Repository) -> None:
    assert problems(repository, left=LIMIT // 2) == ""
    assert "gives it up after 512 MiB more" in problems(repository, left=LIMIT // 2 - 1)
    assert problems(repository, left=None) == ""
    assert problems(repository, status="lost", left=0) == ""  # which is told as worse


def test_wal_that_waits_while_nothing_is_stored_is_told(repository: Repository, clock: FakeClock) -> None:
    assert "4.0 KiB of WAL wait" in problems(repository, waiting=4096)
    assert sum(clock.slept) == pytest.approx(PATIENCE_S)
    assert problems(repository, waiting=4096, is_active=False) == ""  # which is told as no receiver


def test_an_idle_server_and_one_that_has_just_written_are_well(
    repository: Repository, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert problems(repository) == ""
    assert clock.slept == []

    def store_meanwhile(seconds: float) -> None:
        clock.advance(seconds)
        repository.wal.store_part(SYSTEM, "0000000100000000000000AB", 3, b"more")

    monkeypatch.setattr(clock, "sleep", store_meanwhile)
    assert problems(repository, waiting=4096) == ""


def test_a_heartbeat_that_is_overdue_is_told(repository: Repository) -> None:
    assert problems(repository, lag_s=950.0) == ""
    assert "16 min 40 s old" in problems(repository, lag_s=1000.0)
    assert problems(repository, lag_s=1000.0, heartbeat=0.0) == ""
    assert problems(repository, lag_s=1000.0, is_active=False) == ""
