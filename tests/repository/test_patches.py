"""A patched content is its base with the changes; one that cannot be is refused, whatever it says."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.codec.deltas import delta
from backstay.core.pipeline import Workers
from backstay.errors import BackupFailed, CorruptedBackup
from backstay.repository.blobs import patches
from backstay.repository.blobs.contents import (
    CHANGE,
    PATCH,
    Change,
    MetaWriter,
    Patch,
    all_chunk_ids,
    content_of,
    frame,
    read_content,
)
from backstay.repository.blobs.patches import WORTH, PatchWriter, worthwhile
from backstay.repository.blobs.writer import BlobWriter
from backstay.repository.format import RecordKind
from backstay.repository.nodes import EMPTY, PATCHED, Content
from backstay.repository.repository import Repository
from backstay.storage.memory import MemoryStorage
from backstay.trust.secrets import Secret

encode = msgspec.msgpack.encode
SECRET = Secret.new_keyfile()


@pytest.fixture(scope="module")
def repository() -> Iterator[Repository]:
    with Repository.create(MemoryStorage(), SECRET) as repository:
        yield repository


@contextmanager
def writing(repository: Repository) -> Iterator[BlobWriter]:
    with Workers(1, "seal") as workers:
        writer = repository.writer(workers)
        yield writer
        writer.flush()
        repository.index.write([pack for packs, _ in writer.settled() for pack in packs])
        writer.close()


def stored(repository: Repository, writer: BlobWriter, pieces: list[bytes]) -> Content:
    ids = [repository.keyring.chunk_ids.of(piece) for piece in pieces]
    for chunk, piece in zip(ids, pieces, strict=True):
        writer.put(RecordKind.DATA_PACK, chunk, piece)
    return content_of(ids, writer, repository.keyring.chunk_ids, repository.listing_chunker)


def content_bytes(repository: Repository, content: Content) -> bytes:
    return b"".join(map(bytes, read_content(content, repository.reader)))


def change(repository: Repository, at: int, new: bytes, base: bytes, base_at: int, base_length: int) -> Change:
    packed = delta(new, base[base_at : base_at + base_length])
    return Change(at, len(new), base_at, base_length, repository.keyring.chunk_ids.of(new), packed)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_patched_content_is_its_base_with_the_changes(repository: Repository, data: st.DataObject) -> None:
    rng = random.Random(data.draw(st.integers(0, 1 << 32), label="seed"))
    pieces = [rng.randbytes(rng.randrange(1, 3000)) for _ in range(rng.randrange(6))]
    base = b"".join(pieces)
    cuts = sorted(rng.sample(range(len(base) + 1), min(len(base) + 1, rng.randrange(7))))
    expected, changes = bytearray(base), []
    for start, end in zip(cuts[::2], cuts[1::2], strict=False):
        new = rng.randbytes(end - start)
        expected[start:end] = new
        base_at = rng.randrange(len(base) + 1)
        changes.append(change(repository, start, new, base, base_at, rng.randrange(len(base) - base_at + 1)))
    size = rng.choice([len(base), rng.randrange(cuts[-1], len(base) + 1) if cuts else len(base)])
    if rng.random() < 0.3:  # what is behind the base must be a change
        new = rng.randbytes(rng.randrange(1, 1000))
        size = len(base) + len(new)
        expected += new
        changes.append(change(repository, len(base), new, base, 0, len(base)))
    with writing(repository) as writer:
        patch = PatchWriter(writer, repository.keyring.chunk_ids, repository.listing_chunker)
        for one in changes:
            patch.add(one)
        content = patch.finish(size, stored(repository, writer, pieces))
    assert content.is_patched
    assert content_bytes(repository, content) == expected[:size]
    needed = {*all_chunk_ids(content, repository.reader)}
    assert {repository.keyring.chunk_ids.of(piece) for piece in pieces} <= needed


def forged(
    repository: Repository,
    *,
    changes: list[bytes] | None = None,
    patch: Callable[[Patch], object] = lambda patch: patch,
    kind: int = PATCH,
    behind: bytes = b"",
) -> Content:
    """A patch of 100 bytes whose parts may be anything."""
    with writing(repository) as writer:
        made = writer, repository.keyring.chunk_ids, repository.listing_chunker
        inner = MetaWriter(*made)
        inner.write(b"".join(changes or []))
        good = Patch(100, stored(repository, writer, [BASE]), inner.finish())
        outer = MetaWriter(*made)
        outer.write(frame(kind, encode(patch(good))) + behind)
        found = outer.finish()
    return Content(PATCHED + found.depth, found.ids)


BASE = random.Random(3).randbytes(100)
NEW = BASE[:9] + b"!"


def forged_change(repository: Repository, **other: object) -> bytes:
    good = change(repository, 10, NEW, BASE, 0, 10)
    return frame(CHANGE, encode(msgspec.structs.replace(good, **other)))


def test_the_forger_can_make_what_is_good(repository: Repository) -> None:
    assert content_bytes(repository, forged(repository)) == BASE
    content = forged(repository, changes=[forged_change(repository)])
    assert content_bytes(repository, content) == BASE[:10] + NEW + BASE[20:]


IMPOSSIBLE_CHANGES: list[dict[str, object]] = [
    {"at": -1},
    {"at": 95},
    {"at": 1 << 62},
    {"length": 0},
    {"length": 9},
    {"length": 1 << 40},
    {"base_at": -1},
    {"base_at": 1 << 62},
    {"base_length": -1},
    {"base_length": 101},
    {"base_length": 1 << 40},
    {"chunk": bytes(32)},
    {"chunk": b"short"},
    {"delta": b""},
    {"delta": delta(bytes(10), BASE[:10])},
]


@pytest.mark.parametrize("other", IMPOSSIBLE_CHANGES, ids=lambda other: "-".join(map(str, other)))
def test_a_change_that_cannot_be_is_refused(repository: Repository, other: dict[str, object]) -> None:
    content = forged(repository, changes=[forged_change(repository, **other)])
    with pytest.raises(CorruptedBackup):
        content_bytes(repository, content)


def test_a_patch_that_cannot_be_is_refused(repository: Repository) -> None:
    good = forged_change(repository)
    replace = msgspec.structs.replace
    for content in (
        forged(repository, changes=[good, good]),
        forged(repository, changes=[good[:-1]]),
        forged(repository, changes=[frame(PATCH, b"")]),
        forged(repository, changes=[frame(CHANGE, b"\xc1")]),
        forged(repository, kind=CHANGE),
        forged(repository, behind=frame(PATCH, b"")),
        forged(repository, behind=b"x"),
        forged(repository, patch=lambda patch: replace(patch, size=-1)),
        forged(repository, patch=lambda patch: replace(patch, size=101)),
        forged(repository, patch=lambda patch: replace(patch, base=Content(PATCHED, patch.base.ids))),
        forged(repository, patch=lambda patch: replace(patch, changes=Content(PATCHED, b""))),
        forged(repository, patch=lambda patch: replace(patch, base=Content(0, bytes(32)))),
        forged(repository, patch=lambda _: [1, 2]),
        forged(repository, patch=lambda _: "no patch"),
        Content(PATCHED, b""),
        Content(PATCHED + 5, b""),
        Content(2 * PATCHED, b""),
        Content(PATCHED, bytes(31)),
    ):
        with pytest.raises(CorruptedBackup):
            content_bytes(repository, content)


def test_nothing_changed_in_nothing(repository: Repository) -> None:
    with writing(repository) as writer:
        patch = PatchWriter(writer, repository.keyring.chunk_ids, repository.listing_chunker)
        content = patch.finish(0, EMPTY)
    assert content_bytes(repository, content) == b""


def test_only_what_saves_much_is_a_change() -> None:
    base = random.Random(4).randbytes(4000)
    near = base[:2000] + b"new" + base[2003:]
    packed = worthwhile(near, base)
    assert packed is not None
    assert len(packed) * WORTH <= len(near)
    assert worthwhile(random.Random(5).randbytes(4000), base) is None
    assert worthwhile(b"", base) is None
    assert worthwhile(base, bytes(9 << 20)) is None


def test_a_delta_that_does_not_give_its_data_again_is_not_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    base = random.Random(4).randbytes(4000)
    monkeypatch.setattr(patches, "delta", lambda data, base: delta(bytes(len(data)), base))
    with pytest.raises(BackupFailed, match="does not give its data again"):
        worthwhile(base[:2000] + b"new" + base[2003:], base)
