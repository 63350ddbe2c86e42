"""Contents of a few bytes that name more chunks than anybody can count: each ends as one file, and costs no memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from backstay.codec.digest import ID_BYTES
from backstay.errors import CorruptedBackup
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.blobs.contents import (
    IDS_AT_ONCE,
    PATCH,
    NeededChunks,
    Patch,
    PlainStream,
    all_chunk_ids,
    chunk_ids,
    frame,
    patch_of,
    read_content,
    read_frames,
    summed,
)
from backstay.repository.collection.marking import mark
from backstay.repository.nodes import EMPTY, PATCHED, Content
from backstay.repository.repository import Repository
from tests.formats.forge import Forge
from tests.formats.make_golden import stored_objects

MANY = 1 << 12  # ids in a chunk
encode = msgspec.msgpack.encode


@pytest.fixture
def forge() -> Iterator[Forge]:
    forge = Forge(stored_objects())
    with forge.repository:
        yield forge


def endless(forge: Forge, chunk: bytes) -> Content:
    """The same chunk 2⁵⁰ times."""
    ids = forge.chunks(chunk)
    for _ in range(4):
        ids = forge.chunks(ids * MANY)
    return Content(4, ids * 4)


def patched(forge: Forge, patch: Patch) -> Content:
    return Content(PATCHED, forge.chunks(frame(PATCH, encode(patch))))


Make = Callable[[Forge], Content]
CONTENTS: dict[str, tuple[Make, int]] = {  # and the size that the file claims to have
    "longer than the file": (lambda forge: endless(forge, b"x"), 5),
    "longer than a large file": (lambda forge: endless(forge, b"x" * 1000), 20 << 20),
    "of empty chunks": (lambda forge: endless(forge, b""), 1 << 40),
    "lists of empty lists": (lambda forge: Content(4, endless(forge, b"").ids), 5),
    "a patch that is longer than the file": (
        lambda forge: patched(forge, Patch(1 << 50, endless(forge, b"x"), EMPTY)),
        5,
    ),
    "a patch whose base never ends": (lambda forge: patched(forge, Patch(6, endless(forge, b"x"), EMPTY)), 5),
    "a patch of empty chunks": (lambda forge: patched(forge, Patch(5, endless(forge, b""), EMPTY)), 5),
    "a patch of many": (lambda forge: Content(PATCHED + 4, endless(forge, frame(PATCH, b"\xc0")).ids), 5),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_it_is_one_damaged_file_for_every_command(forge: Forge, tmp_path: Path, name: str) -> None:
    make, size = CONTENTS[name]
    good = forge.file(b"good")
    forge.tree([forge.file(b"bad", content=make(forge), size=size, sha256=None), good])
    forge.repository.close()
    with reopened(forge) as repository:
        newest = repository.snapshots.live()[-1]
        result = run_restore(repository, newest, tmp_path / "target", RestoreOptions())
        assert [error.path for error in result.errors] == ["/bad"]
        assert [path.name for path in (tmp_path / "target").iterdir()] == ["good"]
        report = run_verify(repository, [newest.id], VerifyOptions(read_data=1))
        told = {finding.subject for finding in report.findings if finding.severity == "error"}
        assert told == {f"snapshot {newest.id}: /bad"}
        marked: set[bytes] = set()
        try:
            mark([newest], repository.reader, marked)
        except CorruptedBackup:
            assert "patch" in name or "empty" in name
        else:
            assert good.content is not None
            assert good.content.ids in marked


def reopened(forge: Forge) -> Repository:
    return Forge(forge.objects).repository


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_what_a_content_needs_is_what_reading_it_comes_across(forge: Forge, depth: int) -> None:
    """Ids lie across the borders of chunks, and the same chunks are come upon with other bytes before them."""
    rng = random.Random(depth)
    data = [rng.randbytes(rng.randrange(1, 9)) for _ in range(5)]
    own = [forge.chunks(piece) for piece in data]
    ids = b"".join(rng.choices(own, k=30)) * 7
    inner: set[bytes] = set()
    for _ in range(depth):
        part = ids[: 32 * 9 + rng.randrange(32)]
        others = [ids[at : at + 45] for at in range(len(part), len(ids), 45)]
        forge.chunks(*dict.fromkeys((part, *others)))
        listed = [forge.keyring.chunk_ids.of(piece) for piece in (part, *others)]
        inner.update(listed)
        ids = b"".join(listed)
    content, reader = Content(depth, ids), forge.repository.reader
    sequence = [*chunk_ids(content, reader)]
    assert {*all_chunk_ids(content, reader)} == {*sequence} | inner
    needed = NeededChunks(reader)
    for _ in range(2):
        lengths = summed(needed.of(content), lambda ids: sum(reader.place(chunk).length for chunk in ids))
        assert lengths == sum(reader.place(chunk).length for chunk in sequence)
    with pytest.raises(CorruptedBackup, match="cut short"):
        [*needed.of(Content(depth + 1, forge.chunks(ids, b"x")))]


def test_chunks_of_an_endless_content_are_counted_without_being_named(forge: Forge) -> None:
    content, asked = endless(forge, b"xyz"), 0

    def measure(ids: list[bytes]) -> int:
        nonlocal asked
        asked += len(ids)
        return 3 * len(ids)

    assert summed(NeededChunks(forge.repository.reader).of(content), measure) == 3 * 4 * MANY**4
    assert asked == 4 * MANY + 4


def test_an_empty_chunk_is_refused_wherever_it_is_listed(forge: Forge) -> None:
    empty, reader = forge.chunks(b""), forge.repository.reader
    for content in (Content(0, empty), Content(1, empty), Content(1, forge.chunks(empty)), Content(4, empty * 9)):
        with pytest.raises(CorruptedBackup, match="empty"):
            [*read_content(content, reader)]
        with pytest.raises(CorruptedBackup, match="empty"):
            PlainStream(content, reader).size  # noqa: B018 - it is found by looking


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_any_range_of_a_stream_can_be_asked_for_in_any_order(forge: Forge, depth: int) -> None:
    rng = random.Random(depth)
    data = [rng.randbytes(rng.randrange(1, 40)) for _ in range(50)]
    forge.chunks(*data)
    chosen = rng.choices(data, k=2 * IDS_AT_ONCE + rng.randrange(2) * 77)
    ids = b"".join(map(forge.keyring.chunk_ids.of, chosen))
    for _ in range(depth):
        parts = [ids[at : at + 1000] for at in range(0, len(ids), 1000)]
        forge.chunks(*dict.fromkeys(parts))
        ids = b"".join(map(forge.keyring.chunk_ids.of, parts))
    whole, stream = b"".join(chosen), PlainStream(Content(depth, ids), forge.repository.reader)
    for _ in range(20):
        start = rng.randrange(len(whole))
        end = min(len(whole), start + rng.randrange(3000))
        assert bytes(stream.read(start, end - start)) == whole[start:end]
    assert stream.read_most(len(whole) - 99, 1000) == whole[-99:]
    assert stream.size == len(whole)
    assert stream.reaches(len(whole))
    assert not stream.reaches(len(whole) + 1)
    for start, end in ((-1, 1), (0, len(whole) + 1), (len(whole), len(whole) + 1)):
        with pytest.raises(CorruptedBackup, match="base"):
            stream.read(start, end - start)


def test_of_an_endless_stream_only_the_beginning_is_looked_at(forge: Forge) -> None:
    stream = PlainStream(endless(forge, b"xyz"), forge.repository.reader)
    assert bytes(stream.read(3 * MANY, 7)) == b"xyzxyzx"
    assert stream.reaches(1 << 13)


def test_frames_may_come_byte_by_byte(forge: Forge) -> None:
    bodies = [bytes([number]) * number for number in (0, 200, 1, 7)]
    data = b"".join(frame(3, body) for body in bodies)
    forge.chunks(*{bytes([value]) for value in data})
    ids = b"".join(forge.keyring.chunk_ids.of(bytes([value])) for value in data)
    reader = forge.repository.reader
    assert [*read_frames(Content(0, ids), reader, limit=200)] == [(3, body) for body in bodies]
    with pytest.raises(CorruptedBackup, match="absurd"):
        [*read_frames(Content(0, ids), reader, limit=199)]
    with pytest.raises(CorruptedBackup, match="middle"):
        [*read_frames(Content(0, ids[:-ID_BYTES]), reader, limit=200)]


def test_a_patch_is_refused_at_its_second_record(forge: Forge) -> None:
    content = Content(PATCHED + 4, endless(forge, frame(PATCH, b"\xc0")).ids)
    with pytest.raises(CorruptedBackup, match="foreign"):
        patch_of(content, forge.repository.reader)
