"""Directory listings: nodes in a fixed order, written once, read as a stream (docs/format.md, "Listings")."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from backstay.core.names import printable
from backstay.errors import CorruptedBackup, NotFound
from backstay.repository.blobs.contents import frame, read_frames
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.decoding import decoded
from backstay.repository.nodes import MAX_NODE, Content, Node

NODE_FRAME: Final = 0
MAX_DEPTH: Final = 8192  # directories below each other; Linux has no such limit, but no sane tree comes near
MEND_HINT: Final = (
    "run `backstay repair index`, then `backstay repair packs`; `backstay repair snapshots` leaves out what stays lost"
)


@dataclass(slots=True)
class Totals:
    """What a tree holds so far; sizes in bytes."""

    files: int = 0
    dirs: int = 0
    bytes: int = 0


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Node)


def listing_key(node: Node) -> tuple[bool, bytes]:
    """The order of a listing: everything else by raw name, then directories by raw name.

    Directories come last so that a listing of any size can be written while its entries are read, before the
    directories below it are known.
    """
    return node.is_dir, node.name


def encode_node(node: Node) -> bytes:
    """One framed node. Raises ValueError for one that no reader takes: sources keep to the limits."""
    body = _encoder.encode(node)
    if len(body) > MAX_NODE:
        raise ValueError(f"the node of {printable(node.name)} has {len(body)} bytes")
    return frame(NODE_FRAME, body)


def decode_node(body: bytes) -> Node:
    """One node. Raises CorruptedBackup."""
    node = decoded(_decoder, body, "a listing entry cannot be read")
    node.check()
    return node


def read_listing(content: Content, reader: BlobReader) -> Iterator[Node]:
    """The nodes of a directory, in order, checked to be in order. Raises CorruptedBackup."""
    last: tuple[bool, bytes] | None = None
    try:
        for kind, body in read_frames(content, reader, limit=MAX_NODE):
            if kind != NODE_FRAME:
                raise CorruptedBackup("it holds a foreign record")
            node = decode_node(body)
            key = (node.is_dir, node.name)  # `listing_key`, without the call
            if last is not None and key <= last:
                raise CorruptedBackup("it is out of order, or names an entry twice")
            last = key
            yield node
    except CorruptedBackup as error:
        raise CorruptedBackup("a directory listing cannot be read", cause=str(error), hint=MEND_HINT) from error


def find_node(root: Content, path: bytes, reader: BlobReader) -> Node | None:
    """The node at an absolute path, None for `/` itself. Raises NotFound, CorruptedBackup."""
    node: Node | None = None
    content: Content | None = root
    above = b"/"
    for name in (part for part in path.split(b"/") if part):
        node = None if content is None else _child(content, name, reader)
        if node is None:
            raise NotFound(
                f"there is no {printable(path)} in this snapshot",
                cause=f"{printable(above)} {'is no directory' if content is None else f'holds no {printable(name)}'}",
                hint="`backstay ls ID` and `backstay find PATTERN` show what is in it",
            )
        content = node.content if node.is_dir else None
        above = above.rstrip(b"/") + b"/" + name
    return node


def _child(content: Content, name: bytes, reader: BlobReader) -> Node | None:
    return next((node for node in read_listing(content, reader) if node.name == name), None)
