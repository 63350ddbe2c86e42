"""Trees of values: `/xx/<sha256>`, looked up one listing at a time and written one listing at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from backstay.core.ids import is_digest
from backstay.errors import CorruptedBackup, ObjectNotFound
from backstay.repository.blobs.contents import MetaWriter
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.nodes import EMPTY, Content, Node
from backstay.repository.trees.listings import Totals, encode_node, read_listing
from backstay.repository.trees.stat_stream import Leave, encode_enter, encode_leave
from backstay.repository.values.shard import ValueShard
from backstay.repository.values.stored import StoredValue, value_of

_DIRECTORY: Final = 0o040700
_CACHED: Final = 1 << 17  # values that are remembered: about 95 bytes each


_NONE: Final = ValueShard()


class ValueTrees:
    """Reads trees; listings read last are remembered."""

    def __init__(self, reader: Callable[[], BlobReader], *, accept_loss: bool = False) -> None:
        """With `accept_loss`, listings that cannot be read are taken for empty."""
        self._reader, self._accept_loss = reader, accept_loss
        self._roots: OrderedDict[Content, dict[int, Content]] = OrderedDict()
        self._shards: OrderedDict[Content, ValueShard] = OrderedDict()
        self._cached = 0

    def shards(self, root: Content) -> dict[int, Content]:
        """The listings of a tree by the first byte of the values in them."""
        known = self._roots.get(root)
        if known is None:
            known = self._roots[root] = {_shard(node): node.content or EMPTY for node in self._listing(root)}
            while len(self._roots) > 1024:
                self._roots.popitem(last=False)
        return known

    def shard(self, root: Content, shard: int) -> ValueShard:
        """The values of a tree that begin with a byte."""
        content = self.shards(root).get(shard)
        if content is None:
            return _NONE
        known = self._shards.get(content)
        if known is None:
            known = self._shards[content] = ValueShard(map(value_of, self._listing(content)))
            self._cached += len(known)
            while self._cached > _CACHED and len(self._shards) > 1:
                self._cached -= len(self._shards.popitem(last=False)[1])
        self._shards.move_to_end(content)
        return known

    def find(self, root: Content, digest: bytes) -> StoredValue | None:
        """One value of a tree."""
        return self.shard(root, digest[0]).get(digest)

    def holds(self, root: Content, digest: bytes) -> bool:
        """Whether a tree has a value."""
        return digest in self.shard(root, digest[0])

    def content(self, root: Content, digest: bytes) -> Content | None:
        """What names the bytes of a value of a tree."""
        return self.shard(root, digest[0]).content(digest)

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
