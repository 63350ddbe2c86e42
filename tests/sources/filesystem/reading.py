"""Ways to list and read a tree."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from backstay.core.clock import SystemClock
from backstay.sources.filesystem import FilesystemSource, OpenDirectory
from backstay.sources.filters import Filters
from backstay.sources.source import Capture, Stat

SMALL = 128 << 10
LATER = 3600 * 10**9


class LateClock(SystemClock):
    """An hour ahead, so that nothing counts as changed a moment ago."""

    def now_ns(self) -> int:
        return super().now_ns() + LATER


def source(*paths: Path | bytes, **options: object) -> FilesystemSource:
    patterns = options.pop("patterns", ())
    filters = Filters(patterns, **options)  # type: ignore[arg-type]
    return FilesystemSource([os.fsencode(path) for path in paths], filters=filters, clock=LateClock())


def rows(directory: OpenDirectory) -> list[Stat]:
    return [entry for page in directory.pages() for entry in page]


def row(directory: OpenDirectory, name: bytes) -> Stat:
    return next(entry for entry in rows(directory) if entry[0] == name)


def names(directory: OpenDirectory) -> list[bytes]:
    return [entry[0] for entry in rows(directory)]


def walk(directory: OpenDirectory) -> Iterator[bytes]:
    for entry in rows(directory):
        yield directory.path.rstrip(b"/") + b"/" + entry[0]
        if stat.S_ISDIR(entry[1]):
            yield from walk(directory.enter(entry))


def below(root: Path, found: FilesystemSource) -> list[str]:
    """Every path of the source that lies below `root`, relative to it."""
    prefix = os.fsencode(root) + b"/"
    return sorted(os.fsdecode(path.removeprefix(prefix)) for path in walk(found.root()) if path.startswith(prefix))


def descend(directory: OpenDirectory, path: Path | bytes) -> OpenDirectory:
    for name in os.fsencode(path).strip(b"/").split(b"/"):
        directory = directory.enter(row(directory, name))
    return directory


def opened(path: Path, **options: object) -> OpenDirectory:
    return descend(source(path, **options).root(), path)


def capture(path: Path, *, small: int = SMALL) -> Capture:
    directory = opened(path.parent)
    return directory.capture(row(directory, os.fsencode(path.name)), small=small)


def tree(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (root / path).mkdir(exist_ok=True)
        else:
            (root / path).write_bytes(path.encode())


def read_all(got: Capture, size: int = 100_000) -> bytes:
    assert got.stream is not None
    return b"".join(iter(lambda: got.stream.read(size), b""))  # type: ignore[union-attr]
