"""What a server sends is taken apart and put together without a server: laws that hold for any files and any pieces."""

from __future__ import annotations

import io
import itertools
import random
import struct
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backstay.codec.compression import Buffer
from backstay.core.pipeline import Workers
from backstay.errors import BackupFailed, CorruptedBackup
from backstay.operations.clusters.files import ClusterFiles
from backstay.operations.clusters.stored_files import CHUNK, StoredFile
from backstay.repository.blobs.contents import read_content
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.blobs.writer import BlobWriter
from backstay.repository.nodes import EMPTY, Node
from backstay.repository.repository import Repository
from backstay.sources.postgres.increments import BLOCK, ChangesHeader
from backstay.sources.postgres.manifest import Checksum, ManifestFile, Sent, read_manifest, write_manifest
from backstay.sources.postgres.tar_stream import Member, TarStream
from backstay.testing import MemoryStorage
from tests.operations.copies import SECRET

MAGIC = 0xD3AE1F0D


@dataclass
class Seen:
    """A sink that keeps everything."""

    members: list[tuple[Member, bytes]] = field(default_factory=list)
    _open: list[tuple[Member, bytearray]] = field(default_factory=list)

    def begin(self, member: Member) -> None:
        assert not self._open
        self._open.append((member, bytearray()))

    def data(self, piece: memoryview) -> None:
        self._open[0][1].extend(piece)

    def end(self) -> None:
        member, data = self._open.pop()
        self.members.append((member, bytes(data)))


def archived(files: dict[str, bytes]) -> bytes:
    """A tar as PostgreSQL writes it, with a directory and a symlink in front."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        directory = tarfile.TarInfo("./pg_wal")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o700
        tar.addfile(directory)
        link = tarfile.TarInfo("pg_tblspc/16384")
        link.type, link.linkname = tarfile.SYMTYPE, "/srv/space"
        tar.addfile(link)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.uid, info.mtime = len(data), 0o600, 26, 1_700_000_000
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {len(data)})
    start = 0
    for end in ends:
        yield data[start:end]
        start = end


names = st.text("abcdef0123456789_", min_size=1, max_size=30)
cuts = st.lists(st.integers(0, 1 << 20), max_size=20)


@given(files=st.dictionaries(names, st.binary(max_size=3000), max_size=5), cuts=cuts)
def test_an_archive_is_the_same_in_pieces_of_any_length(files: dict[str, bytes], cuts: list[int]) -> None:
    seen, data = Seen(), archived(files)
    stream = TarStream(seen)
    for piece in pieces(data, cuts):
        stream.feed(piece)
    stream.finish()
    directory, link, *rest = seen.members
    assert (directory[0].path, directory[0].kind, directory[0].mode) == (b"pg_wal", "directory", 0o700)
    assert (link[0].kind, link[0].target) == ("symlink", b"/srv/space")
    assert {member.path.decode(): body for member, body in rest} == files
    assert all((member.uid, member.mode, member.mtime) == (26, 0o600, 1_700_000_000) for member, _ in rest)


@given(st.integers(1, 5000))
def test_an_archive_that_is_cut_short_is_noticed(missing: int) -> None:
    data = archived({"file": bytes(range(256)) * 20})
    body = data.rindex(bytes(range(256))) + 256
    stream = TarStream(Seen())
    stream.feed(data[: body - missing])
    with pytest.raises(BackupFailed, match="cut short"):
        stream.finish()


@pytest.mark.parametrize("harm", [b"name", b"size", b"type", b"outside", b"above"])
def test_what_is_no_archive_is_refused(harm: bytes) -> None:
    name = {b"outside": "/etc/passwd", b"above": "base/../../x"}.get(harm, "file")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.type = tarfile.FIFOTYPE if harm == b"type" else tarfile.REGTYPE
        tar.addfile(info)
    data = bytearray(out.getvalue())
    if harm in (b"name", b"size"):
        data[0 if harm == b"name" else 124] ^= 0x3F
    with pytest.raises(BackupFailed):
        TarStream(Seen()).feed(bytes(data))


CRC = Checksum("CRC32C", b"1234")


def changes(blocks: list[int], truncation: int) -> bytes:
    head = struct.pack("=III", MAGIC, len(blocks), truncation) + struct.pack(f"={len(blocks)}I", *blocks)
    return head + bytes(-len(head) % BLOCK) if blocks else head


@given(
    blocks=st.lists(st.integers(0, 5000), max_size=50, unique=True).map(sorted), length=st.integers(0, 6000), cuts=cuts
)
def test_a_header_of_changes_is_the_same_in_pieces_of_any_length(
    blocks: list[int], length: int, cuts: list[int]
) -> None:
    header, data = ChangesHeader(), changes(blocks, length) + b"behind"
    rest = b""
    found = None
    for piece in pieces(data, cuts):
        if found is None:
            found, left = header.feed(memoryview(piece))
            rest += bytes(left)
        else:
            rest += piece
    assert found is not None
    assert found.blocks == tuple(blocks)
    assert found.length == max(length, blocks[-1] + 1 if blocks else 0)
    assert rest == b"behind"


@pytest.mark.parametrize(
    "data", [bytes(12), struct.pack("=III", MAGIC, 1 << 30, 0), changes([5, 3], 9), changes([3, 3], 9)]
)
def test_a_header_that_cannot_be_is_refused(data: bytes) -> None:
    with pytest.raises(BackupFailed):
        ChangesHeader().feed(memoryview(data))


@dataclass
class Store:
    repository: Repository
    writer: BlobWriter


@pytest.fixture(scope="module")
def repository() -> Iterator[Repository]:
    with Repository.create(MemoryStorage(), SECRET) as repository:
        yield repository


def sent(repository: Repository, name: str, data: bytes, earlier: dict[bytes, Node], cuts: list[int]) -> Node:
    """The node of one file that a server sent, all of it or what changed."""
    with Workers(1, "seal") as workers:
        store = Store(repository, repository.writer(workers))
        incremental = name.startswith("INCREMENTAL.")
        files = ClusterFiles(store, earlier, repository.reader, lambda _files, _bytes: None, incremental=incremental)
        stream = TarStream(files.archive(None))
        for piece in pieces(archived({name: data}), cuts):
            stream.feed(piece)
        stream.finish()
        store.writer.flush()
        repository.index.write([pack for packs, _ in store.writer.settled() for pack in packs])
        store.writer.close()
    return next(node for path, node in files.nodes.items() if node.is_file)


def content(repository: Repository, node: Node) -> bytes:
    return b"".join(map(bytes, read_content(node.content or EMPTY, repository.reader)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    old_blocks=st.integers(0, 3 * CHUNK // BLOCK),
    truncation=st.integers(0, 3 * CHUNK // BLOCK),
    changed=st.lists(st.integers(0, 4 * CHUNK // BLOCK), max_size=8, unique=True).map(sorted),
    cuts=cuts,
)
def test_a_patched_file_is_what_the_server_has(
    repository: Repository, old_blocks: int, truncation: int, changed: list[int], cuts: list[int]
) -> None:
    old = b"".join(bytes([1 + block % 250]) * BLOCK for block in range(old_blocks))
    first = sent(repository, "16384", old, {}, cuts)
    assert content(repository, first) == old
    new = {block: bytes([200 + block % 50]) * BLOCK for block in changed}
    data = changes(changed, truncation) + b"".join(new[block] for block in changed)
    length = max([truncation, *(block + 1 for block in changed)])
    expected = b"".join(
        new.get(block) or old[block * BLOCK : (block + 1) * BLOCK].ljust(BLOCK, b"\0") for block in range(length)
    )
    node = sent(repository, "INCREMENTAL.16384", data, {b"data/16384": first}, cuts)
    assert node.name == b"16384"
    assert node.size == len(expected)
    assert content(repository, node) == expected
    assert node.sha256 is None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rounds=st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 40 * BLOCK), st.binary(min_size=1, max_size=40)), max_size=12),
            st.integers(-2 * CHUNK // BLOCK, 2 * CHUNK // BLOCK),  # how many blocks it grows by
            st.booleans(),  # whether the server sends all of it
        ),
        min_size=1,
        max_size=4,
    ),
    seed=st.integers(0, 9),
)
def test_a_file_that_changes_little_again_and_again_is_what_the_server_has(
    repository: Repository, rounds: list[tuple[list[tuple[int, bytes]], int, bool]], seed: int
) -> None:
    data = bytearray(random.Random(seed).randbytes(10 * BLOCK))
    node = sent(repository, "16384", bytes(data), {}, [])
    for edits, growth, whole in rounds:
        before = bytes(data)
        data = data[: max(0, len(data) + growth * BLOCK)] + bytes(max(0, growth * BLOCK))
        for at, new in edits:
            if at + len(new) <= len(data):
                data[at : at + len(new)] = new
        now = bytes(data)
        blocks = [at // BLOCK for at in range(0, len(now), BLOCK) if now[at : at + BLOCK] != before[at : at + BLOCK]]
        told = changes(blocks, len(now) // BLOCK) + b"".join(now[block * BLOCK :][:BLOCK] for block in blocks)
        name, body = ("16384", now) if whole else ("INCREMENTAL.16384", told)
        node = sent(repository, name, body, {b"data/16384": node}, [])
        assert content(repository, node) == now


def test_a_hint_on_each_page_costs_next_to_nothing(repository: Repository) -> None:
    data = bytearray(random.Random(1).randbytes(64 * CHUNK))
    first = sent(repository, "16385", bytes(data), {}, [])
    stored = repository.backend
    before = sum(info.size for info in stored.list(""))
    for at in range(0, len(data), 100):
        data[at] ^= 1
    node = sent(repository, "16385", bytes(data), {b"data/16385": first}, [])
    assert node.content is not None
    assert node.content.is_patched
    assert content(repository, node) == bytes(data)
    assert sent(repository, "16385", bytes(data), {b"data/16385": node}, []).content == node.content
    assert sum(info.size for info in stored.list("")) - before < len(data) / 10
    back = sent(repository, "16385", bytes(content(repository, first)), {b"data/16385": node}, [])
    assert back.content == first.content


def test_a_file_with_an_earlier_one_that_is_lost_is_stored_whole() -> None:
    with Repository.create(MemoryStorage(), SECRET) as repository:
        data = bytearray(random.Random(1).randbytes(3 * CHUNK))
        first = sent(repository, "16385", bytes(data), {}, [])
        for info in [*repository.backend.list("packs/")]:
            repository.backend.delete(info.name)
        repository.release()
        data[5] ^= 1
        node = sent(repository, "16385", bytes(data), {b"data/16385": first}, [])
        assert node.content is not None
        assert not node.content.is_patched


def test_changes_of_a_file_that_the_earlier_snapshot_lacks_are_refused(repository: Repository) -> None:
    with pytest.raises(CorruptedBackup, match="lacks data/16384"):
        sent(repository, "INCREMENTAL.16384", changes([1], 3) + bytes(BLOCK), {}, [])


def test_a_file_whose_changes_cannot_be_read_is_never_taken_for_its_base(repository: Repository) -> None:
    data = bytearray(random.Random(2).randbytes(600 * CHUNK))
    first = sent(repository, "16386", bytes(data), {}, [])
    for number in range(600):  # the changes are longer than one chunk of their stream
        data[number * CHUNK : number * CHUNK + 900] = random.Random(number).randbytes(900)
    node = sent(repository, "16386", bytes(data), {b"data/16386": first}, [])
    file = StoredFile(node, repository.reader)
    good = [chunk.id for number in range(600) if (chunk := file.chunk(number)) is not None]

    class FailsOnce(BlobReader):
        def chunk(self, chunk: bytes) -> Buffer:
            if next(reads) == 3:
                raise CorruptedBackup("the disk gave other bytes")
            return super().chunk(chunk)

    reads = itertools.count()
    file = StoredFile(
        node, FailsOnce(repository.backend, repository.keyring, repository.index, repository.reload_index)
    )
    refused = 0
    for number in range(600):
        try:
            chunk = file.chunk(number)
        except CorruptedBackup:
            refused += 1
        else:
            assert chunk is not None
            assert chunk.id == good[number]
    assert 0 < refused < 600


def manifest(path: bytes, size: int) -> bytes:
    files = [ManifestFile(path, size, 1_700_000_000, CRC), ManifestFile(b"\xff", 0, 0, Checksum("SHA256", bytes(32)))]
    return write_manifest(files, version=18, system=7, timeline=1, start=0, stop=1 << 24)


def test_a_file_is_as_long_as_the_server_says(repository: Repository) -> None:
    with Workers(1, "seal") as workers:
        store = Store(repository, repository.writer(workers))
        files = ClusterFiles(store, {}, repository.reader, lambda *_: None, incremental=False)
        for space, name in ((None, "base/5/7"), (16385, "PG_18/5/8")):
            stream = TarStream(files.archive(space))
            stream.feed(archived({name: b"bytes"}))
            stream.finish()
    for path in (b"base/5/7", b"pg_tblspc/16385/PG_18/5/8"):
        files.require_sizes(manifest(path, 5))
        with pytest.raises(BackupFailed, match="5 bytes"):
            files.require_sizes(manifest(path, 6))


def test_a_manifest_that_was_written_is_read_again() -> None:
    assert read_manifest(manifest(b"base/5/7", 5))[b"base/5/7"] == Sent(5, CRC)


@pytest.mark.parametrize("harm", [(b'"Size"', b'"Seze"'), (b"CRC32C", b"CRC32D"), (b"}", b"]"), (b"-Checksum", b"-")])
def test_a_manifest_that_is_not_as_it_was_sent_is_refused(harm: tuple[bytes, bytes]) -> None:
    with pytest.raises(BackupFailed, match="manifest"):
        read_manifest(manifest(b"base/5/7", 5).replace(*harm))


def test_fewer_or_more_blocks_than_were_told_are_refused(repository: Repository) -> None:
    first = sent(repository, "16384", bytes(BLOCK), {}, [])
    for data in (changes([0, 1], 2) + bytes(BLOCK), changes([0], 1) + bytes(2 * BLOCK), changes([0], 1)[:20]):
        with pytest.raises(BackupFailed):
            sent(repository, "INCREMENTAL.16384", data, {b"data/16384": first}, [])


def test_a_label_loses_what_asks_for_its_predecessor(repository: Repository) -> None:
    label = b"START WAL LOCATION: 0/2000028\nINCREMENTAL FROM LSN: 0/1\nINCREMENTAL FROM TLI: 1\nLABEL: x\n"
    node = sent(repository, "backup_label", label, {}, [])
    assert content(repository, node) == b"START WAL LOCATION: 0/2000028\nLABEL: x\n"
