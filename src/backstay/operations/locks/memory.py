"""What this machine remembers of the locks that it extended, so that a backup need not ask the store about each object.

Disposable: what is forgotten is extended once more. It belongs to one store and not to the repository, whose copies
have locks of their own.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import msgspec

from backstay.core.clock import datetime_from_ns, ns_from_datetime
from backstay.errors import CorruptedBackup
from backstay.repository.decoding import decoded

_decoder = msgspec.msgpack.Decoder(dict[str, int])


class LockMemory:
    """For each object whose lock was extended or seen here, when that lock ends. Without a cache nothing is kept."""

    def __init__(self, cache: Path | None, url: str) -> None:
        digest = hashlib.sha256(url.encode()).hexdigest()[:32]
        self._path = None if cache is None else cache / "locks" / digest
        self._ends: dict[str, int] = {}
        if self._path is not None:
            with suppress(OSError, CorruptedBackup):  # a torn or foreign file is as good as none
                self._ends = decoded(_decoder, self._path.read_bytes(), "what is known of locks cannot be read")

    def end(self, name: str) -> datetime | None:
        """When the lock of an object ends as far as is known here."""
        ns = self._ends.get(name)
        return None if ns is None else datetime_from_ns(ns)

    def note(self, name: str, until: datetime) -> None:
        self._ends[name] = ns_from_datetime(until)

    def save(self, now: datetime) -> None:
        """Keep what is known of locks that have not ended."""
        if self._path is None:
            return
        self._ends = {name: ns for name, ns in self._ends.items() if ns > ns_from_datetime(now)}
        with suppress(OSError):  # as a full disk, or a cache that is read-only: then the store is asked again
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            new = self._path.with_name(f"{self._path.name}.new")
            new.write_bytes(msgspec.msgpack.encode(self._ends))
            new.replace(self._path)
