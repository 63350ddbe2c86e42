"""Restores that need WAL, announced so that it is not removed under them.

A collection leaves what a live snapshot needs, whoever reads it. Which WAL a restore needs no snapshot says, so it
gives signs of life of its own below `readers/`, and whoever removes WAL waits for those that are alive. Notice is
given before anything is looked at; only a removal that had begun before that may still take something away, which the
restore then misses, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from backstay.errors import BackstayError, Interrupted
from backstay.repository.format import READERS
from backstay.repository.repository import Repository
from backstay.repository.sessions.session import (
    LEASE,
    RunningSession,
    Session,
    is_dead_here,
    running_sessions,
)
from backstay.storage.sweeping import store_time


@contextmanager
def announced(repository: Repository, *, warn: Callable[[str], None]) -> Iterator[None]:
    """Within, no expiry removes WAL. Who may not write to the repository is told, and reads all the same.

    A crash leaves an announcement, which counts until its process is known to be dead, or was silent for the lease.
    """
    session = Session(
        repository.backend,
        repository.keyring,
        repository.clock,
        process=repository.process,
        random=repository.environment.random,
        place=READERS,
    )
    try:
        session.announce()
    except Interrupted:
        raise
    except BackstayError as error:
        warn(f"nobody is kept from removing WAL while this reads it: {error}")
        yield
        return
    session.start_heartbeat()
    try:
        yield
    finally:
        _end(session, warn)


def _end(session: Session, warn: Callable[[str], None]) -> None:
    """What was read is whole, whether or not the announcement can be taken back."""
    try:
        session.close()
    except Interrupted:
        raise
    except BackstayError as error:
        warn(f"removals of WAL wait an hour for this restore, although it has ended: {error}")


def running_readers(repository: Repository) -> list[RunningSession]:
    """Those that are alive; what dead ones left is removed."""
    found = running_sessions(repository.backend, repository.keyring, place=READERS)
    if not found:
        return []
    oldest = store_time(repository.backend, repository.environment.random) - LEASE // timedelta(microseconds=1) * 1000
    alive: list[RunningSession] = []
    for reader in found:
        is_dead = reader.record is not None and is_dead_here(reader.record, repository.process)
        if reader.last_seen_ns > oldest and not is_dead:
            alive.append(reader)
            continue
        for name in reader.names:
            repository.backend.delete(name)
    return alive
