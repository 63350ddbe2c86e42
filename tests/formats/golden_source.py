"""A source that exists only in memory: the same names, inodes and times on every machine."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote_from_bytes

from backstay.repository.nodes import Node
from backstay.sources.source import Capture, Directory, Problem, Stat, Stream

Extents = tuple[tuple[int, int], ...]
BORN: Final = 1_700_000_000_000_000_000  # ns; what times are counted from here


@dataclass(slots=True)
class Thing:
    """One item; `data` is whole, holes included, and `extents` the parts of it that are no holes."""

    mode: int
    inode: int
    data: bytes = b""
    extents: Extents | None = None
    mtime_ns: int = BORN
    ctime_ns: int = BORN
    owner: tuple[int, int, str, str] = (1000, 100, "nobody-has-this-name", "")
    target: bytes | None = None
    device: int | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] | None = None
    links: bytes | None = None
    children: dict[bytes, Thing] = field(default_factory=dict)

    @property
    def held(self) -> bytes:
        """The data without holes."""
        if self.extents is None:
            return self.data
        return b"".join(self.data[start : start + length] for start, length in self.extents)

    def row(self, name: bytes) -> Stat:
        return name, self.mode, len(self.data), self.mtime_ns, self.ctime_ns, self.inode

    def node(self, name: bytes) -> Node:
        uid, gid, user, group = self.owner
        return Node(
            name,
            self.mode,
            uid,
            gid,
            user,
            group,
            len(self.data),
            self.mtime_ns,
            target=self.target,
            device=self.device,
            links=self.links,
            xattrs=self.xattrs,
            extents=self.extents,
        )


class MemoryStream:
    """A large file being read."""

    def __init__(self, name: bytes, thing: Thing) -> None:
        self._name, self._thing = name, thing
        self._at = 0
        self.extents = thing.extents

    def read(self, size: int) -> bytes:
        data = self._thing.held[self._at : self._at + size]
        self._at += len(data)
        return data

    def close(self) -> tuple[Stat, Node]:
        return self._thing.row(self._name), self._thing.node(self._name)

    def abandon(self) -> None:
        """Nothing is open."""


class MemoryDirectory:
    """One directory of the source."""

    def __init__(self, path: bytes, thing: Thing) -> None:
        self.path, self._thing = path, thing

    def pages(self) -> Iterator[Sequence[Stat]]:
        yield [thing.row(name) for name, thing in sorted(self._thing.children.items())]

    def capture(self, entry: Stat, *, small: int) -> Capture:
        name = entry[0]
        thing = self._thing.children[name]
        if not stat.S_ISREG(thing.mode):
            return Capture(thing.row(name), thing.node(name))
        if len(thing.data) <= small:
            return Capture(thing.row(name), thing.node(name), thing.held)
        stream: Stream = MemoryStream(name, thing)
        return Capture(thing.row(name), thing.node(name), stream=stream)

    def lend(self) -> None:
        return None

    def unlike(self, entry: Stat) -> None:
        return None

    def enter(self, entry: Stat) -> Directory:
        return MemoryDirectory(self.path.rstrip(b"/") + b"/" + entry[0], self._thing.children[entry[0]])

    def close(self) -> None:
        """Nothing is open."""


class MemorySource:
    """The protocol of backstay.sources.source, without a file system."""

    kind = "filesystem"

    def __init__(self, root: Thing, paths: Sequence[bytes]) -> None:
        self.paths: Sequence[bytes] = tuple(paths)
        self.problems: list[Problem] = []
        self._root = root

    def root(self) -> Directory:
        return MemoryDirectory(b"/", self._root)


def described(root: Thing) -> dict[str, dict[str, Any]]:
    """What a restore must bring back, by quoted path, in a form that can be stored as JSON."""
    found: dict[str, dict[str, Any]] = {}
    stack = [(b"", root)]
    while stack:
        path, directory = stack.pop()
        for name, thing in directory.children.items():
            below = path + b"/" + name
            found[quote_from_bytes(below)] = _facts(thing)
            if stat.S_ISDIR(thing.mode):
                stack.append((below, thing))
    return dict(sorted(found.items()))


def _facts(thing: Thing) -> dict[str, Any]:
    facts: dict[str, Any] = {"mode": oct(thing.mode), "mtime_ns": thing.mtime_ns, "owner": list(thing.owner[:2])}
    if stat.S_ISREG(thing.mode):
        facts |= {"size": len(thing.data), "sha256": hashlib.sha256(thing.data).hexdigest()}
        facts["holes"] = thing.extents is not None
    if thing.target is not None:
        facts["target"] = quote_from_bytes(thing.target)
    if thing.links is not None:
        facts["links"] = thing.links.hex()
    if thing.xattrs is not None:
        facts["xattrs"] = {quote_from_bytes(name): value.hex() for name, value in thing.xattrs}
    return facts
