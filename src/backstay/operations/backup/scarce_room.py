"""A word in time, before a disk with a repository on it is full."""

from __future__ import annotations

from typing import Final

from backstay.core.events import EventSink, Warned, too_late_to_stop
from backstay.core.quantities import format_size
from backstay.storage.assembly import engines
from backstay.storage.backend import Room, StorageBackend

FULL_PERCENT: Final = 90
LEAST: Final = 1 << 30  # bytes


def warn_of_scarce_room(backend: StorageBackend, events: EventSink) -> None:
    """After a commit, tell which places of a store are nearly full, one line for each.

    Those that do not say are passed over.
    """
    tell = too_late_to_stop(events)
    for place in engines(backend):
        room = place.room()
        if room is not None and is_scarce(room):
            # Rounded down: what has a byte left is not full.
            percent = 100 * (room.total - room.free) // room.total if room.total else 100
            tell(
                Warned(
                    message=f"the file system of {place.url} is {percent} % full, {format_size(room.free)} of "
                    f"{format_size(room.total)} are free: `backstay prune` and `backstay gc` make room"
                )
            )


def is_scarce(room: Room) -> bool:
    """Whether another backup or two may not fit."""
    used = room.total - room.free
    return room.free < LEAST or 100 * used >= FULL_PERCENT * room.total
