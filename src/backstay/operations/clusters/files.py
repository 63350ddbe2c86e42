"""Takes the files of a PostgreSQL cluster as they come and stores them in chunks of 32 KiB: whole, or patched.

A patched file is the earlier snapshot's with the blocks that changed: only chunks that hold one of these are stored.
Where little changed in a chunk, such as the hints that the first reading of a table leaves on each of its pages, only
that is stored. The snapshot is as whole as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple, Protocol

from backstay.codec.compression import Buffer
from backstay.codec.digest import sha256
from backstay.core.names import printable
from backstay.errors import BackstayError, BackupFailed, CorruptedBackup, ObjectFrozen, ObjectNotFound, TierNotAttached
from backstay.repository.blobs.contents import Change, changes_of, chunk_list, content_of, patch_of
from backstay.repository.blobs.patches import PatchWriter, worthwhile
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.blobs.writer import BlobWriter
from backstay.repository.format import RecordKind
from backstay.repository.nodes import EMPTY, Content, Node
from backstay.repository.repository import Repository
from backstay.sources.postgres.increments import BLOCK, PREFIX, Changes, ChangesHeader
from backstay.sources.postgres.manifest import read_manifest
from backstay.sources.postgres.tar_stream import Member, Sink

CHUNK: Final = 32 << 10  # bytes: four blocks, so that a changed block costs little and a file is not too many chunks
DATA: Final = b"data"  # the directory of a snapshot that holds the data directory
TABLESPACES: Final = b"tablespaces"  # the one that holds the others, by their oids
LABEL: Final = DATA + b"/backup_label"
UNREADABLE: Final = (CorruptedBackup, ObjectNotFound, TierNotAttached, ObjectFrozen)
_IN_VAIN: Final = 8  # after so many deltas in a row that saved too little, only each eighth chunk is tried
_TYPES: Final = {"file": 0o100000, "directory": 0o040000, "symlink": 0o120000}


class Store(Protocol):
    """What contents are made with."""

    writer: BlobWriter
    repository: Repository


class ClusterFiles:
    """The files of one backup, by their paths in the snapshot; `earlier` are those of the snapshot before.

    With `incremental` the server sends only what changed since that. `told` is called now and then with the number of
    files and bytes that were taken.
    """

    def __init__(
        self,
        store: Store,
        earlier: Mapping[bytes, Node],
        reader: BlobReader,
        told: Callable[[int, int], None],
        *,
        incremental: bool,
    ) -> None:
        self._incremental = incremental
        self.nodes: dict[bytes, Node] = {}
        self.bytes_read = 0
        self._whole: dict[bytes, Node] = {}  # files that came whole, by their paths in the server's manifest
        self._store, self._earlier, self._reader, self._told = store, earlier, reader, told

    def archive(self, tablespace: int | None) -> Sink:
        """What takes the members of an archive: of the data directory, or of a tablespace."""
        root = DATA if tablespace is None else b"%b/%d" % (TABLESPACES, tablespace)
        return _Archive(self, root)

    def progress(self, done: int) -> None:
        self._told(len(self.nodes), done)

    def add(self, path: bytes, data: bytes, *, mtime: int) -> None:
        """A file that is made here."""
        content, digest = _made(self._store, data)
        name = path.rpartition(b"/")[2]
        self.nodes[path] = Node(
            name, 0o100600, 0, 0, "", "", len(data), mtime * 1_000_000_000, content=content, sha256=digest
        )

    def require_sizes(self, manifest: bytes) -> None:
        """See that each file that came whole is as long as the server says. Raises BackupFailed."""
        for path, sent in read_manifest(manifest).items():
            node = self._whole.get(path)
            if node is not None and node.size != sent.size:
                raise BackupFailed(f"{path!r} came with {node.size} bytes, and the server sent {sent.size}")

    def own_directories(self) -> None:
        """Give the directories that the server sends no member for to whom the files in them belong."""
        for path, node in list(self.nodes.items()):
            top = path.split(b"/")[: 2 if path.startswith(TABLESPACES) else 1]
            if len(top) < path.count(b"/") + 1 and b"/".join(top) not in self.nodes:
                self.nodes[b"/".join(top)] = Node(top[-1], 0o040700, node.uid, node.gid, "", "", 0, node.mtime_ns)

    def member(self, root: bytes, member: Member) -> _Body:
        """Begin with a member; what takes its bytes."""
        parent, _, name = (root + b"/" + member.path).rpartition(b"/")
        if name.startswith(PREFIX) and self._incremental:
            path = parent + b"/" + name.removeprefix(PREFIX)
            earlier = StoredFile(self._known(path), self._reader)
            return _Patched(path, _Chunks(self._store, earlier, self._reader), earlier, self._reader)
        path = parent + b"/" + name
        return _Label(self._store) if path == LABEL else _Whole(self._beside_earlier(path))

    def _known(self, path: bytes) -> Node:
        """The file that changes were sent of. Where it is missing nobody knows what is between these."""
        node = self._earlier.get(path)
        if node is None:
            raise CorruptedBackup(f"the earlier base backup lacks {printable(path)}")
        return node

    def _beside_earlier(self, path: bytes) -> _Chunks:
        """Chunks of a file that comes whole: nothing but room depends on the earlier one."""
        try:
            earlier = StoredFile(self._earlier.get(path), self._reader)
        except UNREADABLE:
            earlier = StoredFile(None, self._reader)
        return _Chunks(self._store, earlier, self._reader)

    def place(self, root: bytes, member: Member, body: _Body | None) -> None:
        """A member is complete."""
        parent, _, name = (root + b"/" + member.path).rpartition(b"/")
        if isinstance(body, _Patched):
            name = name.removeprefix(PREFIX)
        node = Node(
            name,
            _TYPES[member.kind] | member.mode,
            member.uid,
            member.gid,
            "",  # the server always writes "postgres" here, whoever it runs as
            "",
            0,
            member.mtime * 1_000_000_000,
        )
        if body is not None:
            node.content, node.sha256 = body.finish()
            node.size = body.size
        elif member.kind == "symlink":
            node.target, node.size = member.target, len(member.target)
        self.nodes[parent + b"/" + name] = node
        if isinstance(body, _Whole):
            self._whole[member.path if root == DATA else b"%b/%b" % (_in_manifest(root), member.path)] = node


class _Archive:
    """The sink of one archive."""

    def __init__(self, files: ClusterFiles, root: bytes) -> None:
        self._files, self._root = files, root
        self._member: Member | None = None
        self._body: _Body | None = None

    def begin(self, member: Member) -> None:
        self._member = member
        self._body = self._files.member(self._root, member) if member.kind == "file" else None

    def data(self, piece: memoryview) -> None:
        assert self._body is not None
        self._files.bytes_read += len(piece)
        self._body.data(piece)

    def end(self) -> None:
        assert self._member is not None
        self._files.place(self._root, self._member, self._body)


class _Body(Protocol):
    size: int  # bytes of the file, once it is finished

    def data(self, piece: memoryview) -> None: ...

    def finish(self) -> tuple[Content, bytes | None]:
        """The content, and the SHA-256 of the file if it is known already."""
        ...


class _Chunks:
    """Chunks of one file, stored in order: each as it is, or as what changed in that of the earlier snapshot."""

    def __init__(self, store: Store, earlier: StoredFile, reader: BlobReader) -> None:
        self._made = store.writer, store.repository.keyring.chunk_ids, store.repository.listing_chunker
        self._writer, self._ids, _ = self._made
        self._earlier, self._reader = earlier, reader
        self._found: list[bytes] = []
        self._changes: PatchWriter | None = None
        self._size = 0
        self._in_vain = 0  # deltas in a row that saved too little

    def put(self, data: bytes | bytearray | memoryview) -> None:
        """The next chunk of the file."""
        chunk = self._ids.of(data)
        if not self._writer.has(chunk) and self._put_change(chunk, data):
            return
        self._writer.put(RecordKind.DATA_PACK, chunk, data)
        self._add(chunk, len(data))

    def keep(self, length: int) -> bool:
        """Take the next chunk as the earlier snapshot has it; false if it does not have it any more."""
        old = self._earlier.chunk(len(self._found))
        if old is None or not self._writer.has(old.chunk):
            return False
        self._add(old.chunk, length, old.change)
        return True

    def _put_change(self, chunk: bytes, data: bytes | bytearray | memoryview) -> bool:
        """Store a chunk as what changed, if that is little."""
        try:
            old = self._earlier.chunk(len(self._found))
            # With another length, what is behind it would lie elsewhere in the base.
            if old is None or old.length != len(data) or not self._writer.has(old.chunk):
                return False
            change = self._change(old, chunk, data)
        except UNREADABLE:  # nothing to build upon: the chunk is stored as it is, and `verify` tells
            return False
        if change is not None:
            self._add(old.chunk, len(data), change)
        return change is not None

    def _change(self, old: StoredChunk, chunk: bytes, data: bytes | bytearray | memoryview) -> Change | None:
        if old.change is not None and old.change.chunk == chunk:
            return old.change
        if self._in_vain >= _IN_VAIN and len(self._found) % _IN_VAIN:
            return None
        packed = worthwhile(data, self._reader.chunk(old.chunk))
        if packed is None:
            self._in_vain += 1
            return None
        self._in_vain = 0
        return Change(self._size, len(data), self._size, len(data), chunk, packed)

    def _add(self, chunk: bytes, length: int, change: Change | None = None) -> None:
        if change is not None:
            if self._changes is None:
                self._changes = PatchWriter(*self._made)
            self._changes.add(change)
        self._found.append(chunk)
        self._size += length

    def content(self) -> Content:
        if not self._found:
            return EMPTY
        content = content_of(self._found, *self._made)
        return content if self._changes is None else self._changes.finish(self._size, content)


class _Whole:
    """A file that comes from its beginning to its end."""

    def __init__(self, chunks: _Chunks) -> None:
        self._chunks = chunks
        self._buffer = bytearray()
        self.size = 0

    def data(self, piece: memoryview) -> None:
        self.size += len(piece)
        if self._buffer:
            piece = self._fill(piece)
        while len(piece) >= CHUNK:  # as a server sends them
            self._chunks.put(piece[:CHUNK])
            piece = piece[CHUNK:]
        self._buffer += piece

    def _fill(self, piece: memoryview) -> memoryview:
        """Complete the chunk that was begun; what is left."""
        missing = CHUNK - len(self._buffer)
        self._buffer += piece[:missing]
        if len(self._buffer) == CHUNK:
            self._chunks.put(self._buffer)
            self._buffer = bytearray()
        return piece[missing:]

    def finish(self) -> tuple[Content, bytes | None]:
        if self._buffer:
            self._chunks.put(self._buffer)
        return self._chunks.content(), None


class _Label:
    """backup_label without the lines that make a server refuse to start from a file that is whole again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._bytes = bytearray()
        self.size = 0

    def data(self, piece: memoryview) -> None:
        self._bytes += piece

    def finish(self) -> tuple[Content, bytes | None]:
        lines = bytes(self._bytes).splitlines(keepends=True)
        kept = b"".join(line for line in lines if not line.startswith(b"INCREMENTAL FROM"))
        self.size = len(kept)
        return _made(self._store, kept)


def _made(store: Store, data: bytes) -> tuple[Content, bytes]:
    """Store a file that is made here; its content and SHA-256."""
    whole = _Whole(_Chunks(store, StoredFile(None, store.repository.reader), store.repository.reader))
    whole.data(memoryview(data))
    return whole.finish()[0], sha256(data)


def _in_manifest(root: bytes) -> bytes:
    """Where the server's manifest has the files of a tablespace: behind its link."""
    return b"pg_tblspc" + root.removeprefix(TABLESPACES)


class StoredChunk(NamedTuple):
    """A chunk of a file: what is stored, what was changed in it since, and how many bytes it has."""

    chunk: bytes
    change: Change | None
    length: int

    def read(self, reader: BlobReader) -> Buffer:
        """Its bytes. Raises CorruptedBackup."""
        data = reader.chunk(self.chunk)
        if len(data) != self.length:
            raise CorruptedBackup("it is not cut as files of a cluster are")
        return data if self.change is None else self.change.apply_to(data, reader)

    @property
    def id(self) -> bytes:
        """The id that its bytes have."""
        return self.chunk if self.change is None else self.change.chunk


class StoredFile:
    """A file of a cluster as a snapshot has it, asked for chunk by chunk, in order.

    Once its changes could not be read, it says so for every chunk that follows: without them the base looks whole.
    """

    def __init__(self, node: Node | None, reader: BlobReader) -> None:
        self._size = node.size if node is not None else 0
        content = (node.content or EMPTY) if node is not None else EMPTY
        changes: Iterator[Change] = iter(())
        if content.is_patched:
            patch = patch_of(content, reader)
            content, changes = patch.base, changes_of(patch, reader)
        self._chunks = chunk_list(content, reader)
        self._changes = changes
        self._failure: BackstayError | None = None
        self._next = self._change()

    def chunk(self, number: int) -> StoredChunk | None:
        """The chunk of a number that is not less than the one before; None behind the end. Raises CorruptedBackup."""
        start = number * CHUNK
        if start >= self._size:
            return None
        while self._next is not None and self._next.at + self._next.length <= start:
            self._next = self._change()
        change = self._next if self._next is not None and self._next.at < start + CHUNK else None
        length = min(CHUNK, self._size - start)
        if number >= len(self._chunks) or (change is not None and _range(change) != (start, length, start, length)):
            raise CorruptedBackup("it is not cut as files of a cluster are")
        return StoredChunk(self._chunks[number], change, length)

    def _change(self) -> Change | None:
        if self._failure is not None:
            raise self._failure
        try:
            return next(self._changes, None)
        except UNREADABLE as error:
            self._failure = error
            raise


def _range(change: Change) -> tuple[int, int, int, int]:
    return change.at, change.length, change.base_at, change.base_length


class _Patched:
    """A file of which only the blocks come that changed; they come in order, and so do the chunks."""

    def __init__(self, path: bytes, chunks: _Chunks, old: StoredFile, reader: BlobReader) -> None:
        self._path, self._chunks, self._old, self._reader = path, chunks, old, reader
        self._header = ChangesHeader()
        self._blocks: Changes | None = None
        self._block = bytearray()
        self._next_block = 0  # index of the block that comes next
        self._chunk = 0  # number of the chunk that is being made
        self._new: dict[int, bytes] = {}  # its blocks that came
        self.size = 0

    def data(self, piece: memoryview) -> None:
        if self._blocks is None:
            self._blocks, piece = self._header.feed(piece)
            if self._blocks is None:
                return
            self.size = self._blocks.length * BLOCK
        while piece:
            missing = BLOCK - len(self._block)
            self._block += piece[:missing]
            piece = piece[missing:]
            if len(self._block) == BLOCK:
                self._take(bytes(self._block))
                self._block.clear()

    def _take(self, data: bytes) -> None:
        assert self._blocks is not None
        if self._next_block >= len(self._blocks.blocks):
            raise BackupFailed(f"the server sent more of {self._path!r} than it said")
        block = self._blocks.blocks[self._next_block]
        self._next_block += 1
        self._finish_chunks(before=block * BLOCK // CHUNK)
        self._new[block] = data

    def finish(self) -> tuple[Content, bytes | None]:
        if self._blocks is None or self._block or self._next_block < len(self._blocks.blocks):
            raise BackupFailed(f"the server sent less of {self._path!r} than it said")
        self._finish_chunks(before=-(-self.size // CHUNK))
        return self._chunks.content(), None

    def _finish_chunks(self, *, before: int) -> None:
        while self._chunk < before:
            self._finish_chunk()
            self._chunk += 1
            self._new = {}

    def _finish_chunk(self) -> None:
        start = self._chunk * CHUNK
        length = min(CHUNK, self.size - start)
        old = self._old.chunk(self._chunk)
        if not self._new and old is not None and length == old.length and self._chunks.keep(length):
            return
        data = bytearray(length)
        if old is not None and len(self._new) * BLOCK < length:
            data[: min(length, old.length)] = old.read(self._reader)[:length]
        for block, new in self._new.items():
            at = block * BLOCK - start
            data[at : at + BLOCK] = new
        self._chunks.put(data)
