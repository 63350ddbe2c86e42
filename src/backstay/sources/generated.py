"""A source made of a few files that exist only while they are read: dumps, copies of databases."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from msgspec.structs import replace

from backstay.codec.chunker import DUMPS, Chunking
from backstay.repository.nodes import Node, storable_time
from backstay.sources.metadata import Owners, read_xattrs
from backstay.sources.source import NEVER_SAME, PAGE_ENTRIES, Capture, Problem, Stat

PRIVATE_FILE: Final = stat.S_IFREG | 0o600
PRIVATE_DIRECTORY: Final = stat.S_IFDIR | 0o700


class ByteReader(Protocol):
    """Bytes of unknown number. Failures are BackstayErrors, which end the backup: half a dump is worth nothing."""

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`; empty at the end."""
        ...

    def finish(self) -> None:
        """After the end: let go, and raise unless what was read is whole."""
        ...

    def abandon(self) -> None:
        """Let go after a failure; may be called more than once, and after finish."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedFile:
    """One file: `node` says what it will look like, with the size in bytes that is expected, or 0.

    `open` is called once, when its bytes are wanted.
    """

    path: bytes
    node: Node
    open: Callable[[], ByteReader]
    chunking: Chunking | None = None


def made_node(path: bytes, mode: int, mtime_ns: int, *, size: int = 0) -> Node:
    """A node of something that this process makes, and owns."""
    uid, gid, owners = os.geteuid(), os.getegid(), Owners()
    return Node(
        path.rpartition(b"/")[2], mode, uid, gid, owners.user(uid), owners.group(gid), size, storable_time(mtime_ns)
    )


def dump_file(
    directory: bytes, made_ns: int, name: bytes, open_: Callable[[], ByteReader], size: int = 0
) -> GeneratedFile:
    """What a program prints, as a file that only its owner reads."""
    path = directory + b"/" + name
    node = made_node(path, PRIVATE_FILE, made_ns, size=size)
    return GeneratedFile(path=path, node=node, open=open_, chunking=DUMPS)


def path_component(text: str) -> bytes:
    """A text as one part of a path."""
    safe = text.replace("%", "%25").replace("/", "%2F") if text.strip(".") else text.replace(".", "%2E")
    return safe.encode("utf-8", "surrogateescape")


def node_of(path: bytes) -> Node:
    """What a path of this machine looks like now, less its content. Raises OSError."""
    info, owners = os.lstat(path), Owners()
    size = 0 if stat.S_ISDIR(info.st_mode) else info.st_size
    user, group = owners.user(info.st_uid), owners.group(info.st_gid)
    name, mtime = path.rpartition(b"/")[2], storable_time(info.st_mtime_ns)
    node = Node(name, info.st_mode, info.st_uid, info.st_gid, user, group, size, mtime)
    node.xattrs = read_xattrs(path)
    return node


class GeneratedSource:
    """A few generated files under absolute paths; every backup reads all of them, in one directory by their names.

    `directories` says what the directories on the way look like; those it does not name are private and as old as the
    newest file. `consistency` is asked when all is read, for what the snapshot tells of the moment that it shows.
    """

    def __init__(
        self,
        kind: str,
        paths: Sequence[bytes],
        files: Iterable[GeneratedFile],
        *,
        directories: Mapping[bytes, Node] | None = None,
        consistency: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self.kind = kind
        self.consistency = consistency
        self.paths: Sequence[bytes] = tuple(paths)
        self.problems: list[Problem] = []
        self._root = _Branch()
        found = list(files)
        newest = max((file.node.mtime_ns for file in found), default=0)
        for file in found:
            self._add(file, directories or {}, newest)

    def _add(self, file: GeneratedFile, directories: Mapping[bytes, Node], newest: int) -> None:
        *above, name = file.path.strip(b"/").split(b"/")
        branch, path = self._root, b""
        for part in above:
            path += b"/" + part
            node = directories.get(path) or made_node(path, PRIVATE_DIRECTORY, newest)
            branch = branch.directories.setdefault(part, (node, _Branch()))[1]
        branch.files[name] = file

    def root(self) -> GeneratedDirectory:
        """The directory `/` of the snapshot; holds only what leads to the files."""
        return GeneratedDirectory(b"/", self._root)


@dataclass(slots=True)
class _Branch:
    """What lies in one directory, by name."""

    files: dict[bytes, GeneratedFile] = field(default_factory=dict)
    directories: dict[bytes, tuple[Node, _Branch]] = field(default_factory=dict)


class GeneratedDirectory:
    """One directory of a generated source."""

    def __init__(self, path: bytes, branch: _Branch) -> None:
        self.path = path
        self._branch = branch

    def pages(self) -> Iterator[Sequence[Stat]]:
        """The entries, sorted by name; each differs from all that was there before."""
        nodes = [node for node, _ in self._branch.directories.values()]
        nodes += [file.node for file in self._branch.files.values()]
        rows = sorted(map(_row, nodes))
        for start in range(0, len(rows), PAGE_ENTRIES):
            yield rows[start : start + PAGE_ENTRIES]

    def capture(self, entry: Stat, *, small: int) -> Capture:  # noqa: ARG002 - of any length, so never small
        """Everything about one entry; a file's bytes are made when its stream is read."""
        file = self._branch.files.get(entry[0])
        if file is None:
            return Capture(entry, replace(self._branch.directories[entry[0]][0]))
        return Capture(entry, replace(file.node), stream=_GeneratedStream(file), chunking=file.chunking)

    def lend(self) -> None:
        """Nothing that another process could read by."""

    def enter(self, entry: Stat) -> GeneratedDirectory:
        """Open a child directory."""
        return GeneratedDirectory(self.path.rstrip(b"/") + b"/" + entry[0], self._branch.directories[entry[0]][1])

    def unlike(self, entry: Stat) -> None:
        """No name leads elsewhere."""

    def close(self) -> None:
        """Nothing is held."""


class _GeneratedStream:
    """Opens its file at the first read, and counts."""

    extents: tuple[tuple[int, int], ...] | None = None

    def __init__(self, file: GeneratedFile) -> None:
        self._file = file
        self._reader: ByteReader | None = None
        self._size = 0

    def read(self, size: int) -> bytes:
        if self._reader is None:
            self._reader = self._file.open()
        data = self._reader.read(size)
        self._size += len(data)
        return data

    def close(self) -> tuple[Stat, Node]:
        if self._reader is not None:
            self._reader.finish()
        node = replace(self._file.node, size=self._size)
        return _row(node), node

    def abandon(self) -> None:
        if self._reader is not None:
            self._reader.abandon()


class BytesReader:
    """A few bytes that are known already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self, size: int) -> bytes:
        data, self._data = self._data[:size], self._data[size:]
        return data

    def finish(self) -> None:
        """Nothing is held."""

    def abandon(self) -> None:
        """Nothing is held."""


def _row(node: Node) -> Stat:
    return node.name, node.mode, node.size, node.mtime_ns, NEVER_SAME, 0
