"""Listings and a stat stream of nodes that are all known: for what does not come as a walk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from backstay.repository.blobs.contents import MetaWriter
from backstay.repository.blobs.writer import BlobWriter
from backstay.repository.nodes import Content, Node
from backstay.repository.repository import Repository
from backstay.repository.trees.listings import Totals, encode_node
from backstay.repository.trees.stat_stream import (
    NEVER_SAME,
    PAGE_ENTRIES,
    Leave,
    Row,
    encode_enter,
    encode_leave,
    encode_page,
)

_DIRECTORY: Final = 0o040700


@dataclass(slots=True)
class _Directory:
    node: Node
    files: list[Node] = field(default_factory=list)
    directories: dict[bytes, _Directory] = field(default_factory=dict)

    @classmethod
    def empty(cls, name: bytes, mtime_ns: int) -> Self:
        return cls(Node(name, _DIRECTORY, 0, 0, "", "", 0, mtime_ns))

    def children(self) -> list[_Directory]:
        return [self.directories[name] for name in sorted(self.directories)]


class NodeTree:
    """A tree of nodes by their paths (relative, `/` between names); directories that are not named are made."""

    def __init__(self, nodes: Mapping[bytes, Node], *, mtime_ns: int) -> None:
        self._mtime_ns = mtime_ns
        self._root = _Directory.empty(b"", mtime_ns)
        for path, node in sorted(nodes.items()):
            above = self._directory(path.rpartition(b"/")[0])
            if node.is_dir:
                self._child(above, node.name).node = node
            else:
                above.files.append(node)

    def _directory(self, path: bytes) -> _Directory:
        found = self._root
        for name in path.split(b"/") if path else ():
            found = self._child(found, name)
        return found

    def _child(self, above: _Directory, name: bytes) -> _Directory:
        if name not in above.directories:
            above.directories[name] = _Directory.empty(name, self._mtime_ns)
        return above.directories[name]

    def write(self, repository: Repository, writer: BlobWriter) -> tuple[Content, Content, Totals]:
        """Store it: the root's listing, the stat stream, and what it holds."""
        return _Writing(repository, writer).run(self._root)


class _Writing:
    def __init__(self, repository: Repository, writer: BlobWriter) -> None:
        self._repository, self._writer = repository, writer
        self._stats = self._stream()
        self._totals = Totals()

    def _stream(self) -> MetaWriter:
        return MetaWriter(self._writer, self._repository.keyring.chunk_ids, self._repository.listing_chunker)

    def run(self, root: _Directory) -> tuple[Content, Content, Totals]:
        above = [(root, self._enter(root))]
        while True:
            directory, below = above[-1]
            child = next(below, None)
            if child is not None:
                above.append((child, self._enter(child)))
                continue
            directory.node.content = self._leave(directory)
            above.pop()
            if not above:
                return directory.node.content, self._stats.finish(), self._totals

    def _enter(self, directory: _Directory) -> Iterator[_Directory]:
        """Write its rows; the directories in it, by name."""
        children = directory.children()
        rows = sorted(map(_row, [*directory.files, *(child.node for child in children)]))
        self._stats.write(encode_enter(directory.node.name, rows[:PAGE_ENTRIES]))
        for at in range(PAGE_ENTRIES, len(rows), PAGE_ENTRIES):
            self._stats.write(encode_page(rows[at : at + PAGE_ENTRIES]))
        return iter(children)

    def _leave(self, directory: _Directory) -> Content:
        """Write its listing: those of the directories in it are known now."""
        listing = self._stream()
        for node in sorted(directory.files, key=lambda node: node.name):
            listing.write(encode_node(node))
        for child in directory.children():
            listing.write(encode_node(child.node))
        content = listing.finish()
        size = sum(node.size for node in directory.files)
        self._stats.write(encode_leave(Leave(content, len(directory.files), size)))
        self._totals.files += len(directory.files)
        self._totals.bytes += size
        self._totals.dirs += 1
        return content


def _row(node: Node) -> Row:
    return node.name, node.mode, 0 if node.is_dir else node.size, node.mtime_ns, NEVER_SAME, 0
