"""Takes the files of a PostgreSQL cluster as they come and stores them in chunks of 32 KiB: whole, or patched.

A patched file is the earlier snapshot's with the blocks that changed: only chunks that hold one of these are stored.
Where little changed in a chunk, such as the hints that the first reading of a table leaves on each of its pages, only
that is stored. The snapshot is as whole as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from backstay.core.names import printable
from backstay.errors import BackupFailed, CorruptedBackup
from backstay.operations.clusters.file_bodies import Body, Label, Patched, Whole, made
from backstay.operations.clusters.file_chunks import Chunks, Store
from backstay.operations.clusters.stored_files import UNREADABLE, StoredFile
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.nodes import Node
from backstay.sources.postgres.increments import PREFIX
from backstay.sources.postgres.manifest import read_manifest
from backstay.sources.postgres.tar_stream import Member, Sink

DATA: Final = b"data"  # the directory of a snapshot that holds the data directory
TABLESPACES: Final = b"tablespaces"  # the one that holds the others, by their oids
LABEL: Final = DATA + b"/backup_label"
_TYPES: Final = {"file": 0o100000, "directory": 0o040000, "symlink": 0o120000}


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
        content, digest = made(self._store, data)
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

    def member(self, root: bytes, member: Member) -> Body:
        """Begin with a member; what takes its bytes."""
        parent, _, name = (root + b"/" + member.path).rpartition(b"/")
        if name.startswith(PREFIX) and self._incremental:
            path = parent + b"/" + name.removeprefix(PREFIX)
            earlier = StoredFile(self._known(path), self._reader)
            return Patched(path, Chunks(self._store, earlier, self._reader), earlier, self._reader)
        path = parent + b"/" + name
        return Label(self._store) if path == LABEL else Whole(self._beside_earlier(path))

    def _known(self, path: bytes) -> Node:
        """The file that changes were sent of. Where it is missing nobody knows what is between these."""
        node = self._earlier.get(path)
        if node is None:
            raise CorruptedBackup(f"the earlier base backup lacks {printable(path)}")
        return node

    def _beside_earlier(self, path: bytes) -> Chunks:
        """Chunks of a file that comes whole: nothing but room depends on the earlier one."""
        try:
            earlier = StoredFile(self._earlier.get(path), self._reader)
        except UNREADABLE:
            earlier = StoredFile(None, self._reader)
        return Chunks(self._store, earlier, self._reader)

    def place(self, root: bytes, member: Member, body: Body | None) -> None:
        """A member is complete."""
        parent, _, name = (root + b"/" + member.path).rpartition(b"/")
        if isinstance(body, Patched):
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
        if isinstance(body, Whole):
            self._whole[member.path if root == DATA else b"%b/%b" % (_in_manifest(root), member.path)] = node


class _Archive:
    """The sink of one archive."""

    def __init__(self, files: ClusterFiles, root: bytes) -> None:
        self._files, self._root = files, root
        self._member: Member | None = None
        self._body: Body | None = None

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


def _in_manifest(root: bytes) -> bytes:
    """Where the server's manifest has the files of a tablespace: behind its link."""
    return b"pg_tblspc" + root.removeprefix(TABLESPACES)
