"""What every remote store does with buffers and lengths: one flat copy out, exactly so many bytes back."""

from __future__ import annotations

import secrets
import threading
import zlib
from typing import Final

from backstay.errors import StorageUnavailable
from backstay.storage.backend import Buffer
from backstay.storage.names import TEMPORARY

_VERIFY: Final = "run `backstay verify`: the object was cut off, or the index does not belong to it"


_TURNS: Final = 64


class Turns:
    """Locks by name, for stores that decide nothing: at least threads of one process do not spoil each other's objects.

    A server was seen to lose an object altogether when two renamed to its name at once.
    """

    def __init__(self) -> None:
        self._locks = [threading.Lock() for _ in range(_TURNS)]

    def of(self, name: str) -> threading.Lock:
        return self._locks[zlib.crc32(name.encode()) % _TURNS]


def flat(data: Buffer) -> bytes:
    """The buffer's bytes in a row; copied unless they are `bytes` already, as the caller may reuse its buffer."""
    return data if isinstance(data, bytes) else bytes(data)


def temporary_name() -> str:
    """A name that no listing shows, for an object that is not whole yet."""
    return f"{TEMPORARY}{secrets.token_hex(12)}"


def too_short(name: str, start: int, length: int | None, size: int) -> StorageUnavailable:
    """An object that ends before what was asked for; `size` is how far it goes."""
    asked = "the bytes" if length is None else f"{length} bytes"
    return StorageUnavailable(
        f"{name} is too short", cause=f"asked for {asked} from {start} on, but it has only {size}", hint=_VERIFY
    )


def span(name: str, start: int, length: int | None, size: int) -> int:
    """How many bytes a range of an object of `size` bytes has; an error if it reaches past the end."""
    wanted = size - start if length is None else length
    if wanted < 0 or start + wanted > size:
        raise too_short(name, start, length, size)
    return wanted


def check_stored(name: str, expected: int, found: int | None) -> None:
    """Refuse to believe in an upload whose size on the server is another."""
    if found != expected:
        raise StorageUnavailable(
            f"{name} did not arrive whole",
            cause=f"{expected} bytes were sent, and the server has {'no such file' if found is None else found}",
            hint="try again; if it happens again, the server or something before it damages uploads",
        )
