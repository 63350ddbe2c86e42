"""What a graph needs of the place where values lie; the repository's content-addressed storage has it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from backstay.errors import OutputMismatch


class Batch(Protocol):
    """Values that come to count together."""

    def store(self, content: bytes | Path | Iterable[bytes], metadata: Mapping[str, object] | None = None) -> str:
        """Take one, and give its id."""
        ...


class Values(Protocol):
    """Values under the SHA-256 of their bytes, written `sha256:` and 64 hex digits."""

    def exists(self, key: str) -> bool:
        """Whether it is there."""
        ...

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of many that are not there."""
        ...

    def unavailable(self, keys: Iterable[str]) -> list[str]:
        """Those of many that are not there, or of which the store has lost something; nothing is read."""
        ...

    def open(self, key: str) -> Iterator[bytes]:
        """Its bytes in pieces; raises NotFound, CorruptedBackup."""
        ...

    def store(self, content: bytes | Path | Iterable[bytes], metadata: Mapping[str, object] | None = None) -> str:
        """Keep it durably, and give its id."""
        ...

    def batch(self) -> AbstractContextManager[Batch]:
        """Many values in one commit: none of them counts before its end."""
        ...


def checked(pieces: Iterable[bytes], key: str, what: str) -> Iterator[bytes]:
    """The same pieces; raises OutputMismatch at their end if they are not the value of that id."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        yield piece
    found = f"sha256:{digest.hexdigest()}"
    if found != key:
        raise OutputMismatch(f"{what} is not what was recorded", cause=f"its bytes have the id {found}, not {key}")
