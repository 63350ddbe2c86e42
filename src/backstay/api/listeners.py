"""How many may listen to events at once: all together, and each user, so that nobody takes all places."""

from __future__ import annotations

import threading
from typing import Final

from backstay.errors import RateLimited

_SHARE: Final = 4  # so many users at least can listen
_AGAIN_S: Final = 15


class Listeners:
    """The places, each taken by a user."""

    def __init__(self, most: int) -> None:
        self._most, self._most_each = most, max(1, most // _SHARE)
        self._of: dict[str, int] = {}
        self._lock = threading.RLock()  # whoever is let go by the search for garbage may be in the midst of coming

    def come(self, user: str) -> None:
        """Take a place. Raises RateLimited when there is none left, or none for this user."""
        with self._lock:
            mine = self._of.get(user, 0)
            if sum([*self._of.values()]) >= self._most:
                raise RateLimited("too many listen to events", cause=f"{self._most} do", retry_after=_AGAIN_S)
            if mine >= self._most_each:
                raise RateLimited(
                    "you listen to too many events",
                    cause=f"{mine} streams of yours are open",
                    hint="close some; one `GET /api/events` tells of all jobs",
                    retry_after=_AGAIN_S,
                )
            self._of[user] = self._of.get(user, 0) + 1

    def go(self, user: str) -> None:
        """Give a place back."""
        with self._lock:
            self._of[user] -= 1
            if not self._of[user]:
                del self._of[user]
