"""Write a snapshot anew without what is lost of it."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import msgspec

from backstay.core.version import VERSION
from backstay.errors import CorruptedBackup, ObjectNotFound
from backstay.repository.blobs.contents import MetaWriter, all_chunk_ids, read_frames
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.blobs.writer import BlobWriter
from backstay.repository.nodes import EMPTY, Content, Node
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest, Stats
from backstay.repository.trees.listings import encode_node, read_listing
from backstay.repository.trees.stat_stream import (
    MAX_FRAME,
    Leave,
    Row,
    StatCursor,
    encode_enter,
    encode_leave,
    encode_page,
)

LOST_SHOWN: Final = 20  # lost paths that a description names
# No file has this name: a directory with this row differs from every real one, so that all in it is read again.
UNKNOWN: Final[Row] = (b"/", 0, 0, 0, -1, 0)
_UNREADABLE: Final = (CorruptedBackup, ObjectNotFound)


@dataclass(slots=True)
class Damage:
    """What is wrong with one snapshot; `lost` are absolute paths, a directory's for the rest of its listing."""

    lost: list[bytes] = field(default_factory=list)
    stat_stream: bool = False
    kept: int = 0  # entries that are left, directories included

    def __bool__(self) -> bool:
        return bool(self.lost) or self.stat_stream

    @property
    def nothing_left(self) -> bool:
        return not self.kept


class DamageSurvey:
    """Finds lost files; remembers whole listings, so that snapshots with much in common are looked at once.

    A chunk is lost when no index segment names it, or when it is one of `lost`.
    """

    def __init__(self, repository: Repository, lost: AbstractSet[bytes] = frozenset()) -> None:
        self._reader, self._index = repository.reader, repository.index
        self._lost_chunks = lost
        self._whole: set[bytes] = set()

    def of(self, manifest: Manifest) -> Damage:
        """Everything that is lost of a snapshot."""
        damage = Damage(stat_stream=not self._reads(manifest.stat_stream))
        seen: set[bytes] = set()
        waiting = [(b"/", manifest.root)]
        while waiting:
            path, content = waiting.pop()
            key = blake2b(content.ids, digest_size=16).digest()
            if key in self._whole:
                damage.kept += 1
                continue
            seen.add(key)
            self._listing(path, content, damage, waiting)
        if not damage.lost:
            self._whole |= seen
        damage.lost.sort()
        return damage

    def _listing(self, path: bytes, content: Content, damage: Damage, waiting: list[tuple[bytes, Content]]) -> None:
        try:
            for node in read_listing(content, self._reader):
                below = _join(path, node.name)
                if node.is_dir and node.content is not None:
                    damage.kept += 1
                    waiting.append((below, node.content))
                elif node.is_dir or not self.has(node.content):
                    damage.lost.append(below)
                else:
                    damage.kept += 1
        except _UNREADABLE:
            damage.lost.append(path if path == b"/" else path + b"/")

    def has(self, content: Content | None) -> bool:
        """Whether every chunk of a file is somewhere."""
        if content is None:
            return True
        try:
            return all(
                chunk not in self._lost_chunks and self._index.search(chunk) is not None
                for chunk in all_chunk_ids(content, self._reader)
            )
        except _UNREADABLE:
            return False

    def _reads(self, stream: Content) -> bool:
        try:
            for _ in read_frames(stream, self._reader, limit=MAX_FRAME):
                pass
        except _UNREADABLE:
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewritten:
    """The trees of a new snapshot, and what is in them."""

    root: Content
    stat_stream: Content
    files: int
    dirs: int
    size: int
    lost: int
    packs: set[bytes]
    bytes_added: int

    def manifest(self, old: Manifest, **changes: Any) -> Manifest:  # noqa: ANN401 - fields of a manifest
        """The old manifest with the new trees."""
        stats: Stats = msgspec.structs.replace(
            old.stats,
            files=self.files,
            dirs=self.dirs,
            bytes=self.size,
            files_new=0,
            files_changed=0,
            files_unchanged=self.files,
            bytes_read=0,
            bytes_added=self.bytes_added,
            errors=old.stats.errors + self.lost,
        )
        program = f"backstay {VERSION}"
        return msgspec.structs.replace(
            old, root=self.root, stat_stream=self.stat_stream, stats=stats, program=program, **changes
        )


@dataclass(slots=True, eq=False)
class OpenDirectory:
    """A directory whose listing is being written; `has_base` when the old stat stream is inside it too."""

    path: bytes
    node: Node | None
    nodes: Iterator[Node]
    listing: MetaWriter
    has_base: bool
    files: int = 0
    bytes: int = 0


class SnapshotRewriter:
    """One walk over the old listings; memory stays within a listing chunk per open directory.

    The stat stream keeps the rows of what is kept; where they are not known, a row is written that fits nothing,
    so that a later backup reads that directory again instead of trusting it.
    """

    def __init__(
        self,
        repository: Repository,
        writer: BlobWriter,
        old: Manifest,
        damage: Damage,
        *,
        reader: BlobReader | None = None,
    ) -> None:
        self._repository, self._writer, self._old = repository, writer, old
        self._reader = reader or repository.reader
        self._lost = frozenset(damage.lost)
        self._stats = self._stream()
        self._cursor = None if damage.stat_stream else StatCursor(old.stat_stream, self._reader)
        self._files = self._dirs = self._bytes = 0

    def _stream(self) -> MetaWriter:
        return MetaWriter(self._writer, self._repository.keyring.chunk_ids, self._repository.listing_chunker)

    def run(self) -> Rewritten:
        """Write everything that is left; the caller flushes the writer and indexes its packs."""
        root = self._walk()
        stat_stream = self._stats.finish()
        self._writer.flush()
        index = self._repository.index
        return Rewritten(
            root=root,
            stat_stream=stat_stream,
            files=self._files,
            dirs=self._dirs,
            size=self._bytes,
            lost=len(self._lost),
            packs={index.pack(number).digest for number in self._writer.reused},
            bytes_added=self._writer.bytes_added,
        )

    def _walk(self) -> Content:
        stack = [self._enter(b"/", None, self._old.root, inside_base=True)]
        while True:
            top = stack[-1]
            node = next(top.nodes, None)
            if node is None:
                content = self._leave(stack.pop())
                if not stack:
                    return content
                assert top.node is not None
                top.node.content = content
                stack[-1].listing.write(encode_node(top.node))
            elif node.is_dir:
                path = _join(top.path, node.name)
                stack.append(self._enter(path, node, node.content or EMPTY, inside_base=top.has_base))
            else:
                self._keep(top, node)

    def _enter(self, path: bytes, node: Node | None, content: Content, *, inside_base: bool) -> OpenDirectory:
        name = node.name if node is not None else b""
        entered = self._cursor.enter(name) if inside_base and self._cursor is not None else None
        is_broken = (path if path == b"/" else path + b"/") in self._lost
        if entered is None or is_broken:
            self._stats.write(encode_enter(name, [UNKNOWN]))
        else:
            self._copy_rows(path, name, entered[0])
        return OpenDirectory(path, node, self._left(path, content), self._stream(), entered is not None)

    def _copy_rows(self, path: bytes, name: bytes, rows: list[Row]) -> None:
        assert self._cursor is not None
        self._stats.write(encode_enter(name, self._left_rows(path, rows)))
        while (page := self._cursor.page()) is not None:
            self._stats.write(encode_page(self._left_rows(path, page[0])))

    def _left_rows(self, path: bytes, rows: list[Row]) -> list[Row]:
        return [row for row in rows if _join(path, row[0]) not in self._lost]

    def _left(self, path: bytes, content: Content) -> Iterator[Node]:
        """The entries of a listing that are not lost, up to where it cannot be read any more."""
        nodes = read_listing(content, self._reader)
        while True:
            try:
                node = next(nodes, None)
            except _UNREADABLE:
                return  # the survey named this directory among the lost
            if node is None:
                return
            if _join(path, node.name) not in self._lost:
                yield node

    def _keep(self, top: OpenDirectory, node: Node) -> None:
        if node.content is not None:
            node.content = self._carry(node, node.content)
        top.listing.write(encode_node(node))
        top.files += 1
        top.bytes += node.size if node.target is None else len(node.target)

    def _carry(self, node: Node, content: Content) -> Content:
        """What a file's content is in the new snapshot; the node is passed for those who need its name."""
        del node
        for chunk in all_chunk_ids(content, self._reader):
            self._writer.has(chunk)  # the snapshot depends on their packs
        return content

    def _leave(self, top: OpenDirectory) -> Content:
        content = top.listing.finish()
        if top.has_base:
            assert self._cursor is not None
            self._cursor.leave()
        self._stats.write(encode_leave(Leave(content, top.files, top.bytes)))
        self._files += top.files
        self._dirs += 1
        self._bytes += top.bytes
        return content


def _join(path: bytes, name: bytes) -> bytes:
    return path + name if path.endswith(b"/") else path + b"/" + name
