"""What is wrong with a receiver that runs, or with the slot that keeps WAL for one."""

from __future__ import annotations

from typing import Final

from backstay.core.quantities import format_duration, format_size
from backstay.repository.repository import Repository
from backstay.sources.postgres.receiver import Slot

SLOW_S: Final = 60.0  # since something was stored; a receiver stores every few seconds
PATIENCE_S: Final = 10.0  # how long WAL may wait while we look
LOOK_S: Final = 1.0
GRACE_S: Final = 60.0  # for a heartbeat to be made and stored


def receiving_problems(
    repository: Repository,
    system: int,
    slot: Slot,
    *,
    limit: int | None,
    waiting: int,
    lag_s: float | None,
    heartbeat: float,
) -> list[str]:
    """Problems of a slot that may keep `limit` bytes, and of its receiver.

    `waiting` bytes are written and not stored, the last stored commit is `lag_s` seconds old, and the receiver commits
    every `heartbeat` seconds, 0 for never.
    """
    problems = _pressure(slot, limit)
    if slot.is_active:
        problems += _stall(repository, system, waiting) + _silence(lag_s, heartbeat)
    return problems


def _pressure(slot: Slot, limit: int | None) -> list[str]:
    if slot.left is None or not limit or 2 * slot.left >= limit or slot.status in ("lost", "unreserved"):
        return []
    left = format_size(slot.left)
    return [f"the slot keeps more than half of max_slot_wal_keep_size: the server gives it up after {left} more"]


def _stall(repository: Repository, system: int, waiting: int) -> list[str]:
    """WAL waits, nothing was stored for long, and nothing is while we look. An idle server has none that waits."""
    clock, wal = repository.clock, repository.wal
    newest_ns = wal.newest_ns(system)
    if waiting <= 0 or clock.now_ns() - newest_ns < SLOW_S * 1e9:
        return []
    until = clock.monotonic() + PATIENCE_S
    while clock.monotonic() < until:
        clock.sleep(LOOK_S)
        if wal.newest_ns(system) > newest_ns:
            return []
    return [f"a receiver runs, but {format_size(waiting)} of WAL wait, and nothing is stored"]


def _silence(lag_s: float | None, heartbeat: float) -> list[str]:
    if not heartbeat or lag_s is None or lag_s <= heartbeat + GRACE_S:
        return []
    age, every = format_duration(lag_s), format_duration(heartbeat)
    return [f"the last stored commit is {age} old, though the receiver should see to one every {every}"]
