"""Snapshots that are about to refer to values: which of them may still come to be.

Who makes one announces its session, appends its intent to the values log, and only then looks whether the values are
there. Who removes values has read the log to its end: an intent that is older than the removal is known to it, and a
younger one finds the removal.
"""

from __future__ import annotations

from collections.abc import Iterable

from backstay.repository.repository import Repository
from backstay.repository.sessions.session import RunningSession, is_dead, running_sessions


def unresolved(repository: Repository, sessions: Iterable[str]) -> list[str]:
    """Those that may still commit, after every one was fenced whose process is gone or that has ended without it."""
    open_ones = [ulid for ulid in sessions if repository.snapshots.outcome(ulid) is None]
    if not open_ones:
        return []
    running = {session.id: session for session in running_sessions(repository.backend, repository.keyring)}
    return [ulid for ulid in open_ones if not _is_decided(repository, ulid, running.get(ulid))]


def _is_decided(repository: Repository, ulid: str, session: RunningSession | None) -> bool:
    """Whether it has committed by now, or never will: one that is not announced any more has ended."""
    if repository.snapshots.outcome(ulid) is not None:
        return True
    if session is not None and not is_dead(
        session, repository.backend, here=repository.process, random=repository.environment.random
    ):
        return False
    repository.snapshots.fence(ulid, 0, repository.clock)
    return True
