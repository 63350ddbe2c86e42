"""Room on a full disk: an object that means nothing, and goes first when records are needed to free the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

from backstay.codec.digest import ID_BYTES, sha256
from backstay.errors import CorruptedBackup, InsufficientSpace, ObjectExists, ObjectNotFound, ObjectUnreadable
from backstay.repository.format import RESERVE
from backstay.repository.repository import Repository
from backstay.storage.backend import StorageBackend

SIZE: Final = 1 << 20  # bytes: records and index segments of a collection that condemns ten thousands of packs
T = TypeVar("T")


def set_aside(repository: Repository) -> bool:
    """Keep the reserve, unless it is there and whole; whether it is now.

    Its bytes are random, so that no file system can store them in less room; the first 32 are the SHA-256 of the rest.
    """
    with suppress(ObjectNotFound):
        try:
            check(repository.backend)
        except (CorruptedBackup, ObjectUnreadable):
            repository.backend.delete(RESERVE)
        else:
            return True
    body = repository.environment.random(SIZE - ID_BYTES)
    try:
        repository.backend.store(RESERVE, sha256(body) + body)
    except ObjectExists:  # another program was faster
        return True
    except InsufficientSpace:  # there is nothing to keep it in; the next collection tries again
        return False
    return True


def check(backend: StorageBackend) -> None:
    """Raises ObjectNotFound when there is no reserve, CorruptedBackup when it is not what was set aside."""
    data = memoryview(backend.retrieve(RESERVE))
    if len(data) != SIZE or sha256(data[ID_BYTES:]) != bytes(data[:ID_BYTES]):
        raise CorruptedBackup(
            "the room that is kept for a full disk was changed", cause="its bytes do not fit together"
        )


def release(repository: Repository, delete: Callable[[str], object] | None = None) -> bool:
    """Give the reserve up, if there is one; whether there was."""
    if not repository.backend.exists(RESERVE):
        return False
    (delete or repository.backend.delete)(RESERVE)
    return True


@contextmanager
def given_up(repository: Repository, delete: Callable[[str], object] | None = None) -> Iterator[None]:
    """Room for steps that write little and free much; however they end, it is set aside again if there is room then."""
    was_there = release(repository, delete)
    try:
        yield
    finally:
        if was_there:
            set_aside(repository)


def with_reserve(repository: Repository, act: Callable[[], T]) -> T:
    """What one step gives; if the disk is full, the same step again in the room of the reserve."""
    try:
        return act()
    except InsufficientSpace:
        if not repository.backend.exists(RESERVE):
            raise
    with given_up(repository):
        return act()
