"""Repositories that are open for looking: opening one takes the time that its password is worth, so they are kept.

Each serves one request at a time. One that failed in a way that is not the request's is closed and not used again.
"""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Final

from backstay.core.clock import Clock
from backstay.errors import BackstayError, InvalidRequest, NotFound, RateLimited
from backstay.repository.repository import Repository

MOST: Final = 4
MOST_EACH: Final = 2  # of those that a client keeps for as long as it reads
WAIT_S: Final = 20.0
MOST_WAITING: Final = 8  # each holds one of the few threads that answer requests
FRESH_S: Final = 10.0


@dataclass(slots=True)
class _Open:
    """One open repository, what closes it, and when it last saw what others have written."""

    repository: Repository
    closes: ExitStack
    seen: float


@dataclass(slots=True, kw_only=True)
class Browsing:
    """A few open repositories, which requests take and give back."""

    open: Callable[[], AbstractContextManager[Repository]]
    clock: Clock
    most: int = MOST
    most_each: int = MOST  # for one user
    _idle: queue.LifoQueue[_Open] = field(default_factory=queue.LifoQueue)
    _places: threading.BoundedSemaphore = field(init=False)
    _waiting: threading.BoundedSemaphore = field(init=False)
    _users: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._places = threading.BoundedSemaphore(self.most)
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)

    @contextmanager
    def repository_for(self, user: str) -> Iterator[Repository]:
        """As `repository`, and only a few for one user, so that others find some. Raises RateLimited."""
        with self._lock:
            if self._users[user] >= self.most_each:
                cause = f"you do {self.most_each} times at once"
                raise RateLimited("too many look into backups", cause=cause, retry_after=int(WAIT_S))
            self._users[user] += 1
        try:
            with self.repository() as repository:
                yield repository
        finally:
            with self._lock:
                self._users[user] -= 1
                if not self._users[user]:
                    del self._users[user]

    @contextmanager
    def repository(self) -> Iterator[Repository]:
        """One for this request. Raises RateLimited when all are in use for long, and what opening raises."""
        if not self._has_place():
            raise RateLimited("too many look into backups", cause=f"{self.most} do", retry_after=int(WAIT_S))
        try:
            found = self._take()
            try:
                yield found.repository
            except (NotFound, InvalidRequest):
                self._idle.put(found)
                raise
            except BaseException:
                found.closes.close()
                raise
            self._idle.put(found)
        finally:
            self._places.release()

    def _has_place(self) -> bool:
        """Take a place, if there is one or will be soon; only a few wait for that."""
        if self._places.acquire(blocking=False):
            return True
        if not self._waiting.acquire(blocking=False):
            return False
        try:
            return self._places.acquire(timeout=WAIT_S)
        finally:
            self._waiting.release()

    def close(self) -> None:
        """Close those that nobody uses."""
        while not self._idle.empty():
            self._idle.get_nowait().closes.close()

    def _take(self) -> _Open:
        now = self.clock.monotonic()
        try:
            found = self._idle.get_nowait()
        except queue.Empty:
            closes = ExitStack()
            return _Open(closes.enter_context(self.open()), closes, now)
        if now - found.seen > FRESH_S:
            try:
                found.repository.reload_index()
            except BackstayError:
                found.closes.close()
                raise
            found.seen = now
        return found
