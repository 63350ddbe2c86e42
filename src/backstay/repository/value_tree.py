"""Trees of values: `/xx/<sha256>`, looked up one listing at a time and written one listing at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from backstay.core.ids import is_digest
from backstay.errors import CorruptedBackup, ObjectNotFound
from backstay.repository.blob_reader import BlobReader
from backstay.repository.contents import MetaWriter
from backstay.repository.nodes import EMPTY, Content, Node
from backstay.repository.stat_stream import Leave, encode_enter, encode_leave
from backstay.repository.trees import Totals, encode_node, read_listing
from backstay.repository.values_records import InlineValue

EXTRA: Final = "value"  # in a node's `extra`: what the log would say of an inline value
_FILE: Final = 0o100600
_DIRECTORY: Final = 0o040700
_CACHED: Final = 1 << 17  # values whose nodes are remembered: about 300 bytes each


@dataclass(frozen=True, slots=True)
class StoredValue:
    """Where one value is: its bytes, or the content that names them. `stored_ns`: when, ns since 1970."""

    sha256: bytes
    size: int
    flags: int
    metadata: bytes | None
    stored_ns: int
    data: bytes | None
    content: Content

    @classmethod
    def inline(cls, value: InlineValue, stored_ns: int) -> StoredValue:
        return cls(value.sha256, value.size, value.flags, value.metadata, stored_ns, value.data, EMPTY)

    def node(self, content: Content) -> Node:
        """Its entry in a tree, where its bytes are this content."""
        extra = {EXTRA: {"flags": self.flags, "metadata": self.metadata}} if self.flags or self.metadata else None
        name, ns = self.sha256.hex().encode(), self.stored_ns
        return Node(name, _FILE, 0, 0, "", "", self.size, ns, content, self.sha256, extra=extra)


def value_of(node: Node) -> StoredValue:
    """What a tree says of a value. Raises CorruptedBackup."""
    text = node.name.decode("ascii", "replace")
    if not is_digest(text) or not node.is_file or node.sha256 != bytes.fromhex(text):
        raise CorruptedBackup("a tree of values holds something else", cause=repr(node.name[:80]))
    extra = (node.extra or {}).get(EXTRA) or {}
    flags, metadata = (extra.get("flags", 0), extra.get("metadata")) if isinstance(extra, dict) else (None, None)
    if not isinstance(flags, int) or not (metadata is None or isinstance(metadata, bytes)):
        raise CorruptedBackup("a tree of values holds a malformed node", cause=text)
    return StoredValue(node.sha256, node.size, flags, metadata, node.mtime_ns, None, node.content or EMPTY)


class ValueTrees:
    """Reads trees; listings read last are remembered."""

    def __init__(self, reader: Callable[[], BlobReader], *, accept_loss: bool = False) -> None:
        """With `accept_loss`, listings that cannot be read are taken for empty."""
        self._reader, self._accept_loss = reader, accept_loss
        self._roots: OrderedDict[Content, dict[int, Content]] = OrderedDict()
        self._shards: OrderedDict[Content, dict[bytes, StoredValue]] = OrderedDict()
        self._cached = 0

    def shards(self, root: Content) -> dict[int, Content]:
        """The listings of a tree by the first byte of the values in them."""
        known = self._roots.get(root)
        if known is None:
            known = self._roots[root] = {_shard(node): node.content or EMPTY for node in self._listing(root)}
            while len(self._roots) > 1024:
                self._roots.popitem(last=False)
        return known

    def shard(self, root: Content, shard: int) -> dict[bytes, StoredValue]:
        """The values of a tree that begin with a byte."""
        content = self.shards(root).get(shard)
        if content is None:
            return {}
        known = self._shards.get(content)
        if known is None:
            values = map(value_of, self._listing(content))
            known = self._shards[content] = {value.sha256: value for value in values}
            self._cached += len(known)
            while self._cached > _CACHED and len(self._shards) > 1:
                self._cached -= len(self._shards.popitem(last=False)[1])
        self._shards.move_to_end(content)
        return known

    def find(self, root: Content, digest: bytes) -> StoredValue | None:
        """One value of a tree."""
        return self.shard(root, digest[0]).get(digest)

    def _listing(self, content: Content) -> Iterator[Node]:
        nodes = read_listing(content, self._reader())
        while True:
            try:
                node = next(nodes, None)
            except (CorruptedBackup, ObjectNotFound):
                if not self._accept_loss:
                    raise
                return
            if node is None:
                return
            yield node


def _shard(node: Node) -> int:
    name = node.name
    if not node.is_dir or len(name) != 2 or not is_digest(name.decode("ascii", "replace") * 32):
        raise CorruptedBackup("a tree of values holds something else", cause=repr(name[:80]))
    return int(name, 16)


class ValueTreeWriter:
    """Writes a tree, shards in order. It has no stat data: nothing is compared with it."""

    def __init__(self, stream: Callable[[], MetaWriter], mtime_ns: int) -> None:
        self._stream, self._mtime_ns = stream, mtime_ns
        self._root = stream()
        self.totals = Totals(dirs=1)

    def add(self, shard: int, nodes: Iterable[Node]) -> None:
        """The values of one shard, in any order; none of them makes no directory."""
        listing, count, size = self._stream(), 0, 0
        for node in sorted(nodes, key=lambda node: node.name):
            listing.write(encode_node(node))
            count += 1
            size += node.size
        if count:
            self.keep(shard, listing.finish(), count, size)

    def keep(self, shard: int, listing: Content, count: int, size: int) -> None:
        """A shard whose listing is stored, with so many values of so many bytes."""
        node = Node(b"%02x" % shard, _DIRECTORY, 0, 0, "", "", 0, self._mtime_ns, listing)
        self._root.write(encode_node(node))
        self.totals.files += count
        self.totals.bytes += size
        self.totals.dirs += 1

    def finish(self) -> tuple[Content, Content]:
        """The root's listing, and a stat stream that tells of nothing but it."""
        root = self._root.finish()
        stats = self._stream()
        stats.write(encode_enter(b"", ()))
        stats.write(encode_leave(Leave(root, 0, 0)))
        return root, stats.finish()
