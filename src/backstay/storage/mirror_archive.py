"""Thawing in a mirror: no copy is asked to thaw what another one gives at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from backstay.errors import ObjectNotFound, StorageUnavailable
from backstay.storage.archive import Archive, ThawState
from backstay.storage.backend import StorageBackend

_Place: TypeAlias = tuple[StorageBackend, Archive | None]  # a copy, and how it thaws if it freezes
_READABLE: Final = ("hot", "ready")


class MirrorArchive(Archive):
    """The copies of a mirror, some of which freeze what they keep. Any of them will do for a reader."""

    def __init__(self, places: Sequence[_Place]) -> None:
        self._places = places
        self._nearest: dict[str, Archive] = {}  # by names that no copy gave when they were last asked for: who thaws it

    @property
    def usual_s(self) -> float:
        return max(archive.usual_s for _, archive in self._places if archive is not None)

    def thaw(self, names: Iterable[str], days: int) -> None:
        batches: dict[Archive, list[str]] = {}
        for name in names:
            if name in self._nearest or self.thaw_state(name) not in _READABLE:
                batches.setdefault(self._nearest[name], []).append(name)
        for archive, batch in batches.items():
            archive.thaw(batch, days)

    def thaw_state(self, name: str) -> ThawState:
        """Where it is soonest. Raises StorageUnavailable if a copy did not answer and no other one has the object."""
        found: tuple[ThawState, Archive] | None = None
        failed: StorageUnavailable | None = None
        for copy, archive in self._places:
            try:
                state = _state(copy, archive, name)
            except ObjectNotFound:
                continue
            except StorageUnavailable as error:
                failed = failed or error
                continue
            if archive is None or state in _READABLE:
                self._nearest.pop(name, None)
                return state
            if found is None or (found[0], state) == ("cold", "thawing"):
                found = state, archive
        if found is None:
            raise failed or ObjectNotFound(name)
        self._nearest[name] = found[1]
        return found[0]

    def holds(self, name: str, data: bytes) -> bool:
        return any(archive is not None and _holds(archive, name, data) for _, archive in self._places)


def _state(copy: StorageBackend, archive: Archive | None, name: str) -> ThawState:
    if archive is not None:
        return archive.thaw_state(name)
    copy.stat(name)
    return "hot"


def _holds(archive: Archive, name: str, data: bytes) -> bool:
    try:
        return archive.holds(name, data)
    except ObjectNotFound:
        return False
