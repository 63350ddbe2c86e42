"""Values in memory, with the promises of those in a repository: exact bytes, and batches that count as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from backstay.errors import NotFound


class MemoryValues:
    """A store of values; `batches` counts those that came to their end."""

    def __init__(self, *contents: bytes) -> None:
        self.held: dict[str, bytes] = {}
        self.batches = 0
        for content in contents:
            self.store(content)

    def exists(self, key: str) -> bool:
        return key in self.held

    def missing(self, keys: Iterable[str]) -> list[str]:
        return [key for key in keys if key not in self.held]

    def unavailable(self, keys: Iterable[str]) -> list[str]:
        return self.missing(keys)

    def open(self, key: str) -> Iterator[bytes]:
        if key not in self.held:
            raise NotFound(f"no value {key}")
        content = self.held[key]
        return (content[at : at + 1000] for at in range(0, len(content), 1000))

    def store(self, content: bytes | Path | Iterable[bytes], metadata: Mapping[str, object] | None = None) -> str:
        if isinstance(content, Path):
            content = content.read_bytes()
        whole = content if isinstance(content, bytes) else b"".join(content)
        key = "sha256:" + hashlib.sha256(whole).hexdigest()
        self.held[key] = whole
        return key

    @contextmanager
    def batch(self) -> Iterator[MemoryValues]:
        new = MemoryValues()
        yield new
        self.held.update(new.held)
        self.batches += 1
