"""What looks at files found, remembered for as long as the kernel tells of no change.

Where it does not tell of everything (shared file systems, files with several names, too many directories), and once an
hour, it is looked again. A look is of some paths; what else it depends on makes another one of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from backstay.core.clock import Clock
from backstay.sources.change_journal import ChangeJournal
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters

AGAIN_S: Final = 3600.0
MOST_JOURNALS: Final = 32  # a user may have 128 queues of events, all programs together


@dataclass(frozen=True, slots=True)
class Place:
    """What is looked at: paths as they were given and as they lead today, and what is left out of them."""

    paths: tuple[bytes, ...]
    real: tuple[bytes, ...]
    patterns: tuple[bytes, ...]
    exclude_caches: bool
    one_file_system: bool

    def filters(self) -> Filters:
        return Filters(self.patterns, exclude_caches=self.exclude_caches, one_file_system=self.one_file_system)


@dataclass(slots=True)
class _Remembered:
    journal: ChangeJournal
    found: bytes | None = None
    looked: float = 0.0


class RememberedLooks:
    """Looks of one process; close it at its end."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[Place, _Remembered] = {}  # the one that was asked for last is the last

    def look(self, place: Place, look: Callable[[FilesystemSource], bytes]) -> bytes:
        """What a look finds, or found when nothing has changed since. Raises what the look does."""
        one = self._known.pop(place, None)
        if one is None:
            self._make_room()
            one = _Remembered(ChangeJournal(place.real, filters=place.filters(), clock=self._clock))
        self._known[place] = one
        now = self._clock.monotonic()
        is_known = one.found is not None and one.journal.tells_all and now - one.looked < AGAIN_S
        if is_known and one.found is not None and one.journal.stirred() is None:
            return one.found
        # Asked before anything is looked at: what happens from now on is found at the next look.
        view = one.journal.begin(check=True)
        one.found = None
        source = FilesystemSource(place.paths, filters=place.filters(), clock=self._clock, observer=one.journal)
        try:
            found = look(source)
        except BaseException:
            one.journal.failed()
            raise
        one.journal.done(view, None, source.problems)
        one.found, one.looked = found, now
        return found

    def _make_room(self) -> None:
        while len(self._known) >= MOST_JOURNALS:
            self._known.pop(next(iter(self._known))).journal.close()

    def close(self) -> None:
        """End all watches."""
        known, self._known = self._known, {}
        for one in known.values():
            one.journal.close()
