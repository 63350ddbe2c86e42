"""The files of a graph snapshot: `/graph.json`, `/nodes.jsonl` and `/values.txt`, written and read in streams."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

from backstay.codec.chunker import StreamCutter
from backstay.errors import CorruptedBackup, NotFound
from backstay.graph.documents import MAX_HEAD, read_graph
from backstay.graph.metadata_graph import MetadataGraph
from backstay.repository.blobs.contents import all_chunk_ids, content_of, read_content
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.blobs.writer import BlobWriter
from backstay.repository.format import RecordKind
from backstay.repository.nodes import Content, Node
from backstay.repository.repository import Repository
from backstay.repository.trees.listings import find_node

HEAD: Final = b"graph.json"
NODES: Final = b"nodes.jsonl"
VALUES: Final = b"values.txt"
_FILE: Final = 0o100600


class FileWriter:
    """Stores files from pieces of their bytes. Small chunks: a node that changed should cost little."""

    def __init__(self, repository: Repository, writer: BlobWriter) -> None:
        self._writer, self._ids = writer, repository.keyring.chunk_ids
        self._chunker = repository.listing_chunker
        self._now = repository.clock.now_ns()
        self.bytes_read = 0

    def write(self, name: bytes, pieces: Iterable[bytes]) -> Node:
        """One file."""
        cutter, digest, size = StreamCutter(self._chunker), hashlib.sha256(), 0
        chunks: list[bytes] = []
        for piece in _gathered(pieces, self._chunker.window):
            digest.update(piece)
            size += len(piece)
            chunks.extend(self._put(chunk) for chunk in cutter.feed(piece))
        chunks.extend(self._put(chunk) for chunk in cutter.finish())
        content = content_of(chunks, self._writer, self._ids, self._chunker)
        self.bytes_read += size
        return self._node(name, size, content, digest.digest())

    def again(self, earlier: Node, reader: BlobReader) -> Node | None:
        """A file that was stored before and has not changed; None if a part of it is there no more."""
        content = earlier.content
        if content is None or not all(self._writer.has(chunk) for chunk in all_chunk_ids(content, reader)):
            return None
        return self._node(earlier.name, earlier.size, content, earlier.sha256)

    def _node(self, name: bytes, size: int, content: Content, sha256: bytes | None) -> Node:
        return Node(name, _FILE, 0, 0, "", "", size, self._now, content=content, sha256=sha256)

    def _put(self, chunk: memoryview) -> bytes:
        chunk_id = self._ids.of(chunk)
        self._writer.put(RecordKind.DATA_PACK, chunk_id, chunk)
        return chunk_id


def value_lines(digests: Iterable[str]) -> Iterator[bytes]:
    """`/values.txt`: the SHA-256 of each value that the graph names, sorted, in hexadecimal, one a line."""
    for digest in sorted(digests):
        yield digest.encode() + b"\n"


def read_stored_graph(repository: Repository, root: Content) -> MetadataGraph:
    """The graph of a snapshot. Raises CorruptedBackup, InvalidDocument, InvalidNode, DuplicateNode."""
    head = _file(repository, root, HEAD)
    if head.size > MAX_HEAD:
        raise CorruptedBackup("the head of a stored graph is too large", cause=f"{head.size} bytes")
    return read_graph(b"".join(_pieces(repository, head)), _pieces(repository, _file(repository, root, NODES)))


def _file(repository: Repository, root: Content, name: bytes) -> Node:
    try:
        node = find_node(root, b"/" + name, repository.reader)
    except NotFound as error:
        raise CorruptedBackup("a graph snapshot lacks one of its files", cause=str(error)) from error
    if node is None or not node.is_file or node.content is None:
        raise CorruptedBackup("a graph snapshot lacks one of its files", cause=f"/{name.decode()} is no file")
    return node


def _pieces(repository: Repository, node: Node) -> Iterator[bytes]:
    assert node.content is not None
    return (bytes(piece) for piece in read_content(node.content, repository.reader))


def _gathered(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in pieces of about `size`: lines are too short to be cut one by one."""
    waiting: list[bytes] = []
    total = 0
    for piece in pieces:
        waiting.append(piece)
        total += len(piece)
        if total >= size:
            yield b"".join(waiting)
            waiting, total = [], 0
    if waiting:
        yield b"".join(waiting)
