"""Reading an object of which there are several copies, when only its reader can tell whether it is whole."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from backstay.errors import BackstayError, CorruptedBackup, ObjectNotFound, StorageUnavailable, UnsupportedFormat
from backstay.storage.backend import StorageBackend

T = TypeVar("T")


def retrieve_valid(backend: StorageBackend, name: str, decode: Callable[[bytes], T]) -> T:
    """What `decode` makes of an object, from the first copy whose bytes it accepts.

    Raises the CorruptedBackup that `decode` raised for the first copy when no other has better bytes.
    """
    return from_any_copy(backend, lambda store: decode(store.retrieve(name)))


def from_any_copy(backend: StorageBackend, read: Callable[[StorageBackend], T]) -> T:
    """What `read` makes of a backend, asked twice, else of one of its copies alone. Raises the first CorruptedBackup.

    What was damaged on its way is whole the next time. A version that this program does not know may be damage too.
    """
    damage: BackstayError
    try:
        return read(backend)
    except (CorruptedBackup, UnsupportedFormat) as error:
        damage = error
    backend.forget_reads()
    with suppress(CorruptedBackup, UnsupportedFormat, ObjectNotFound, StorageUnavailable):
        return read(backend)
    copies = backend.copies()
    for copy in copies if len(copies) > 1 else ():
        try:
            return read(copy)
        except (CorruptedBackup, UnsupportedFormat, ObjectNotFound, StorageUnavailable):
            continue
    raise damage
