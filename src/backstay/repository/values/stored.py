"""One value as the log and its trees know it: how large it is, and where its bytes are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from backstay.errors import CorruptedBackup
from backstay.repository.logs.value_entries import InlineValue
from backstay.repository.nodes import EMPTY, Content, Node

EXTRA: Final = "value"  # in a node's `extra`: what the log would say of an inline value
_FILE: Final = 0o100600


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
    if node.sha256 is None or node.sha256.hex().encode() != node.name or not node.is_file:
        raise CorruptedBackup("a tree of values holds something else", cause=repr(node.name[:80]))
    extra = (node.extra or {}).get(EXTRA) or {}
    flags, metadata = (extra.get("flags", 0), extra.get("metadata")) if isinstance(extra, dict) else (None, None)
    if not isinstance(flags, int) or not (metadata is None or isinstance(metadata, bytes)):
        raise CorruptedBackup("a tree of values holds a malformed node", cause=node.name.decode())
    return StoredValue(node.sha256, node.size, flags, metadata, node.mtime_ns, None, node.content or EMPTY)
