"""Listings and a stat stream of nodes that are all known: for what does not come as a walk."""

from __future__ import annotations

from collections.abc import Mapping
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
        listing = self._write(root)
        return listing, self._stats.finish(), self._totals

    def _write(self, directory: _Directory) -> Content:
        children = [directory.directories[name] for name in sorted(directory.directories)]
        files = sorted(directory.files, key=lambda node: node.name)
        rows = sorted(map(_row, [*files, *(child.node for child in children)]))
        self._stats.write(encode_enter(directory.node.name, rows[:PAGE_ENTRIES]))
        for at in range(PAGE_ENTRIES, len(rows), PAGE_ENTRIES):
            self._stats.write(encode_page(rows[at : at + PAGE_ENTRIES]))
        contents = {child.node.name: self._write(child) for child in children}
        listing = self._stream()
        for node in files:
            listing.write(encode_node(node))
        for child in children:
            child.node.content = contents[child.node.name]
            listing.write(encode_node(child.node))
        content = listing.finish()
        size = sum(node.size for node in files)
        self._stats.write(encode_leave(Leave(content, len(files), size)))
        self._totals.files += len(files)
        self._totals.bytes += size
        self._totals.dirs += 1
        return content


def _row(node: Node) -> Row:
    return node.name, node.mode, 0 if node.is_dir else node.size, node.mtime_ns, NEVER_SAME, 0
