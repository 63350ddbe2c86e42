"""Turn the steps of a scan, in order, into listings and a stat stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Final

from backstay.codec.chunker import Chunker
from backstay.codec.digest import ChunkIds
from backstay.core.names import printable
from backstay.errors import CorruptedBackup
from backstay.operations.backup.scan import Kept, Left, Page, Visit
from backstay.repository.blobs.contents import MetaWriter, frame
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.blobs.writer import BlobWriter
from backstay.repository.nodes import EMPTY, Content, Node
from backstay.repository.trees.listings import Totals, encode_node, read_listing
from backstay.repository.trees.stat_stream import ENTER, PAGE, Leave, encode_enter, encode_leave, encode_page
from backstay.sources.source import Stat

_size: Final = itemgetter(2)


class BaseUnusable(CorruptedBackup):
    """The earlier snapshot contradicts itself or cannot be read; a backup without it is still possible."""


@dataclass(slots=True, eq=False)
class _Open:
    """A directory whose listing is being made.

    As long as it is as in the earlier snapshot, nothing is written: `kept_files` and `kept_dirs` are the last names
    seen. At the first difference the earlier listing is copied up to there, and from then on merged.

    One that is `left_out` could not be captured in the directory above, or lies in such a one: it was renamed or
    removed meanwhile, and what a walk finds under its name after all is recorded nowhere.
    """

    visit: Visit
    parent: _Open | None
    left_out: bool = False
    files: int = 0
    size: int = 0
    fresh: dict[bytes, tuple[Stat, Node]] = field(default_factory=dict)
    failed: set[bytes] = field(default_factory=set)
    listing: MetaWriter | None = None
    old: Iterator[Node] | None = None
    old_next: Node | None = None
    kept_files: bytes | None = None
    kept_dirs: bytes | None = None


class Assembler:
    """Takes steps in walk order; memory stays within a page per open directory."""

    def __init__(
        self, writer: BlobWriter, reader: BlobReader, ids: ChunkIds, chunker: Chunker, *, base_root: Content | None
    ) -> None:
        self._writer, self._reader, self._ids, self._chunker = writer, reader, ids, chunker
        self._base_root = base_root
        self._stats = self._stream()
        self._stack: list[_Open] = []
        self.totals = Totals()
        self.root: Content | None = None
        self.stat_stream: Content | None = None

    def _stream(self) -> MetaWriter:
        return MetaWriter(self._writer, self._ids, self._chunker)

    def enter(self, visit: Visit) -> None:
        """A directory begins."""
        parent = self._stack[-1] if self._stack else None
        self._stack.append(_Open(visit, parent, left_out=parent is not None and self._leaves_out(parent, visit.name)))

    @staticmethod
    def _leaves_out(parent: _Open, name: bytes) -> bool:
        return parent.left_out or name in parent.failed

    def _record(self, top: _Open, frames: bytes) -> None:
        if not top.left_out:
            self._stats.write(frames)

    def fresh(self, entry: Stat, node: Node) -> None:
        """An entry of the current directory was captured."""
        self._stack[-1].fresh[node.name] = (entry, node)

    def known(self, visit: Visit) -> Stat | None:
        """What is known of a directory that begins in the current one; None for the root."""
        fresh = self._stack[-1].fresh.get(visit.name) if self._stack else None
        return visit.entry if fresh is None else fresh[0]

    def failed(self, name: bytes) -> None:
        """An entry of the current directory could not be captured: it is left out, and tried again next time."""
        self._stack[-1].failed.add(name)

    def page(self, step: Page) -> None:
        """All entries of a page are known now."""
        top = self._stack[-1]
        rows = step.rows
        if step.unchanged is not None:
            self._record(top, frame(ENTER if step.first else PAGE, step.unchanged))
            if top.listing is None and step.rows:
                top.kept_files = step.rows[-1][0]
        else:
            self._diverge(top)
            rows = [top.fresh[r[0]][0] if r[0] in top.fresh else r for r in step.rows if r[0] not in top.failed]
            self._record(top, encode_enter(top.visit.name, rows) if step.first else encode_page(rows))
        dirs = sum(1 for row in rows if row[1] & 0o170000 == 0o040000)
        top.files += len(rows) - dirs
        top.size += sum(map(_size, rows))  # as captured: the size of some is known only then
        if top.listing is not None:
            self._write_files(top, step)

    def _write_files(self, top: _Open, step: Page) -> None:
        assert top.listing is not None
        for row in step.rows:
            name = row[0]
            if row[1] & 0o170000 == 0o040000 or name in top.failed:
                continue
            fresh = top.fresh.pop(name, None)
            node = fresh[1] if fresh is not None else self._old_node(top, (False, name))
            top.listing.write(encode_node(node))

    def unreadable(self, entry: Stat) -> None:
        """A child directory could not be entered: it is stored as empty, if anything is known of it."""
        if self._leaves_out(self._stack[-1], entry[0]):
            return
        self.totals.dirs += 1
        self._child(self._stack[-1], entry[0], EMPTY, same=False)

    def kept(self, step: Kept) -> None:
        """Part of a child directory that is as it was, with all below it."""
        part = step.part
        if self._leaves_out(self._stack[-1], step.entry[0]):
            return
        self._stats.write(part.frames)
        self.totals.files += part.files
        self.totals.dirs += part.dirs
        self.totals.bytes += part.bytes
        if part.content is not None:
            self._child(self._stack[-1], step.entry[0], part.content, same=True)

    def leave(self, step: Left) -> Content:
        """The current directory is complete."""
        top = self._stack.pop()
        if top.listing is None and step.base is not None:
            content = step.base.content
        else:
            self._diverge(top)
            assert top.listing is not None
            content = top.listing.finish()
        same = step.base is not None and content == step.base.content
        if top.left_out:
            return content
        self._stats.write(encode_leave(Leave(content, top.files, top.size)))
        self.totals.files += top.files
        self.totals.bytes += top.size
        self.totals.dirs += 1
        if self._stack:
            self._child(self._stack[-1], top.visit.name, content, same=same)
        else:
            self.root = content
        return content

    def _child(self, parent: _Open, name: bytes, content: Content, *, same: bool) -> None:
        fresh = parent.fresh.pop(name, None)
        if parent.listing is None and same and fresh is None:
            parent.kept_dirs = name
            return
        self._diverge(parent)
        assert parent.listing is not None
        node = fresh[1] if fresh is not None else self._old_node(parent, (True, name))
        node.content = content
        parent.listing.write(encode_node(node))

    def finish(self) -> Content:
        """The stat stream of the whole walk."""
        return self._stats.finish()

    def _diverge(self, top: _Open) -> None:
        """Begin a new listing with everything that was as before so far, above it too: that cannot stay as it was."""
        waiting = []
        opened: _Open | None = top
        while opened is not None and opened.listing is None:
            waiting.append(opened)
            opened = opened.parent if opened.visit.has_base else None
        while waiting:
            self._begin_listing(waiting.pop())

    def _begin_listing(self, top: _Open) -> None:
        top.listing = self._stream()
        if not top.visit.has_base:
            return
        top.old = read_listing(self._base_listing(top), self._reader)
        while (node := self._peek_old(top)) is not None and self._was_kept(top, node):
            top.listing.write(encode_node(node))
            top.old_next = None

    def _base_listing(self, top: _Open) -> Content:
        """The directory's earlier listing, named by that of its parent."""
        if top.parent is None:
            assert self._base_root is not None
            return self._base_root
        key = (True, top.visit.name)
        while (node := self._peek_old(top.parent)) is not None and (node.is_dir, node.name) < key:
            top.parent.old_next = None
        if node is None or node.name != top.visit.name or node.content is None:
            raise self._contradiction(top.parent, top.visit.name)
        return node.content

    @staticmethod
    def _was_kept(top: _Open, node: Node) -> bool:
        if node.is_dir:
            return top.kept_dirs is not None and node.name <= top.kept_dirs
        return top.kept_files is not None and node.name <= top.kept_files

    def _peek_old(self, top: _Open) -> Node | None:
        if top.old_next is None and top.old is not None:
            top.old_next = next(top.old, None)
        return top.old_next

    def _old_node(self, top: _Open, key: tuple[bool, bytes]) -> Node:
        """The earlier node of an entry that is as before; earlier ones in between are gone."""
        while (node := self._peek_old(top)) is not None:
            found = (node.is_dir, node.name)
            if found > key:
                break
            top.old_next = None
            if found == key:
                return node
        raise self._contradiction(top, key[1])

    @staticmethod
    def _contradiction(top: _Open, name: bytes) -> BaseUnusable:
        return BaseUnusable(
            "the earlier snapshot contradicts itself",
            cause=f"{printable(top.visit.path_of(name))} is in its stat stream, but not in its listing",
            hint="back up with --kind full",
        )
