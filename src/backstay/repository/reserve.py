"""Room on a full disk: an object that means nothing, and goes first when records are needed to free the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from backstay.errors import InsufficientSpace, ObjectExists
from backstay.repository.format import RESERVE
from backstay.repository.repository import Repository

SIZE: Final = 1 << 20  # bytes: records and index segments of a collection that condemns ten thousands of packs
T = TypeVar("T")


def set_aside(repository: Repository) -> bool:
    """Keep the reserve, unless it is there; whether it is now.

    Its bytes are random, so that no file system can store them in less room.
    """
    if repository.backend.exists(RESERVE):
        return True
    try:
        repository.backend.store(RESERVE, repository.environment.random(SIZE))
    except ObjectExists:  # another program was faster
        return True
    except InsufficientSpace:  # there is nothing to keep it in; the next collection tries again
        return False
    return True


def release(repository: Repository) -> bool:
    """Give the reserve up, if there is one; whether there was."""
    if not repository.backend.exists(RESERVE):
        return False
    repository.backend.delete(RESERVE)
    return True


def with_reserve(repository: Repository, act: Callable[[], T]) -> T:
    """What one step gives; if the disk is full, the same step again in the room of the reserve."""
    try:
        return act()
    except InsufficientSpace:
        if not release(repository):
            raise
    return act()
