"""Blobs of large files are read ahead of time past the page cache, and what is wrong with them comes out as ever."""

from __future__ import annotations

import os
import random
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from backstay.codec.compression import Buffer
from backstay.errors import BackstayError, CorruptedBackup, InsufficientSpace
from backstay.operations.restore import contents as restore_contents
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.repository.blobs.ahead import BUFFERS, BlobsAhead
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.format import BlobKind, RecordKind, pack_name
from backstay.repository.index.index import Place
from backstay.repository.repository import Repository
from backstay.sources.pending_file import PendingFile
from backstay.storage.backend import StorageBackend
from backstay.storage.local import LocalStorage
from backstay.testing import MemoryStorage
from tests.descriptors import open_files
from tests.operations.copies import SECRET, SMALL_PACKS, back_up, contents, restored

SIZE = 28 << 20  # at least 20 blobs, wherever the secret of the repository cuts them


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(restore_contents, "WHOLE", 1 << 20)  # bytes above which a file is large
    place = tmp_path / "src"
    place.mkdir()
    (place / "large").write_bytes(random.Random(1).randbytes(SIZE))
    (place / "small").write_bytes(b"small")
    return place


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Place, bool]]:
    """Each blob that was asked for, and whether it could be read ahead of time."""
    done: list[tuple[Place, bool]] = []
    read = BlobsAhead._read

    def noted(self: BlobsAhead, place: Place) -> object:
        found = read(self, place)
        done.append((place, found is not None))
        return found

    monkeypatch.setattr(BlobsAhead, "_read", noted)
    return done


def packs(place: Path) -> list[Path]:
    """Those with data of the large file."""
    return sorted(path for path in place.rglob("*") if path.is_file() and path.stat().st_size > 100_000)


def repository_of(store: StorageBackend, source: Path) -> tuple[Repository, str]:
    repository = Repository.create(store, SECRET, environment=SMALL_PACKS)
    return repository, back_up(repository, source)


@pytest.fixture
def local(tmp_path: Path, source: Path) -> Iterator[tuple[Repository, str]]:
    repository, snapshot = repository_of(LocalStorage(tmp_path / "r"), source)
    with repository:
        yield repository, snapshot


@pytest.fixture
def ordinary(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(pack, ordinal) of each blob that was read in the ordinary way."""
    done: list[tuple[int, int]] = []
    read = BlobReader.read_blob

    def noted(self: BlobReader, pack: int, ordinal: int) -> Buffer:
        done.append((pack, ordinal))
        return read(self, pack, ordinal)

    monkeypatch.setattr(BlobReader, "read_blob", noted)
    return done


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[BlobsAhead]:
    """What has ended its threads."""
    done: list[BlobsAhead] = []
    close = BlobsAhead.close

    def noted(self: BlobsAhead) -> None:
        close(self)
        done.append(self)

    monkeypatch.setattr(BlobsAhead, "close", noted)
    return done


def test_all_that_lies_on_this_machine_is_read_ahead_and_nothing_stays_open(
    local: tuple[Repository, str],
    source: Path,
    tmp_path: Path,
    asked: list[tuple[Place, bool]],
    ordinary: list[tuple[int, int]],
    closed: list[BlobsAhead],
) -> None:
    before = open_files()
    found, errors = restored(*local, tmp_path / "out", source)
    assert (found, errors) == (contents(source), [])
    assert len(asked) > 3  # all that there was room for
    assert all(was_read for _, was_read in asked)
    # None is read twice; a bundle may be, of which several parts are asked for.
    assert not {each for each in ordinary if is_chunk(local[0], *each)} & {
        (place.pack, place.ordinal) for place, _ in asked
    }
    assert len(closed) == 1
    assert {what for what in open_files() - before if str(tmp_path) in what[1]} == set()


def test_what_lies_elsewhere_is_not_asked_for(source: Path, tmp_path: Path, asked: list[tuple[Place, bool]]) -> None:
    repository, snapshot = repository_of(MemoryStorage(), source)
    with repository:
        assert restored(repository, snapshot, tmp_path / "out", source) == (contents(source), [])
    assert asked == []


def test_a_full_target_ends_the_reads_that_are_under_way(
    local: tuple[Repository, str], tmp_path: Path, closed: list[BlobsAhead], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise InsufficientSpace("the disk is full")

    monkeypatch.setattr(PendingFile, "write_at", full)
    repository, snapshot = local
    before = open_files()
    with pytest.raises(InsufficientSpace):
        run_restore(repository, repository.snapshots.get(snapshot), tmp_path / "out", RestoreOptions())
    assert len(closed) == 1
    assert {what for what in open_files() - before if str(tmp_path / "r") in what[1]} == set()


def change(pack: Path) -> None:
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)


@pytest.mark.parametrize(
    "harm", [change, Path.unlink, lambda pack: os.truncate(pack, 4096), lambda pack: os.truncate(pack, 0)]
)
def test_damage_is_told_of_the_file_that_it_concerns(
    local: tuple[Repository, str], source: Path, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    harm(packs(tmp_path / "r")[2])
    found, errors = restored(*local, tmp_path / "out", source)
    assert "large" not in found
    assert str(source / "large") in errors


def test_a_blob_that_cannot_be_read_ahead_is_read_in_the_ordinary_way(
    local: tuple[Repository, str], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError("input/output error")

    monkeypatch.setattr("backstay.core.past_cache.PastCacheReader.read", broken)
    assert restored(*local, tmp_path / "out", source) == (contents(source), [])


def test_bytes_that_came_wrong_from_the_disk_once_are_read_again(
    local: tuple[Repository, str], source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = BlobsAhead._read

    def wrong(self: BlobsAhead, place: Place) -> object:
        found = read(self, place)
        if found is not None:
            found[1].view[len(found[1].view) // 2] ^= 1
        return found

    monkeypatch.setattr(BlobsAhead, "_read", wrong)
    assert restored(*local, tmp_path / "out", source) == (contents(source), [])


def is_chunk(repository: Repository, pack: int, ordinal: int) -> bool:
    """Whether a blob is one chunk."""
    return repository.index.pack(pack).blobs[ordinal].kind == BlobKind.CHUNK


def places(repository: Repository) -> list[Place]:
    """One in each blob of data."""
    return [
        Place(number, ordinal, 0, 0)
        for number, info in repository.index.packs()
        if info.kind is RecordKind.DATA_PACK
        for ordinal in range(len(info.blobs))
    ]


def test_who_asks_for_more_than_there_is_room_for_is_told_at_once(local: tuple[Repository, str]) -> None:
    repository, _ = local
    blobs = BlobsAhead(repository.reader)
    some = places(repository)[: BUFFERS + 2]
    assert len(some) == BUFFERS + 2
    waiting = [blobs.ask(place) for place in some]
    assert [isinstance(each, Future) for each in waiting] == [True] * BUFFERS + [False] * 2
    for place, each in zip(some[:BUFFERS], waiting, strict=False):
        with blobs.taken(each) as lying:
            assert lying is not None
            assert repository.reader.blob(place, lying=lying) == repository.reader.read_blob(place.pack, place.ordinal)
    with blobs.taken(waiting[-1]) as lying:
        assert lying is None
    assert blobs.ask(some[-1]) is not None  # there is room again
    assert blobs.ask(some[BUFFERS - 1]) is None  # decoded a moment ago
    blobs.close()  # with one that nobody takes


def test_room_is_given_back_once_for_each_that_is_taken(local: tuple[Repository, str]) -> None:
    blobs, some = BlobsAhead(local[0].reader), places(local[0])[: BUFFERS + 2]
    for _ in range(3):
        waiting = [blobs.ask(place) for place in some]
        assert [each is not None for each in waiting] == [True] * BUFFERS + [False] * 2
        for each in waiting[:BUFFERS]:
            assert each is not None
            assert each.result(timeout=20) is not None  # a buffer that is not given back is waited for in vain
            with blobs.taken(each):
                pass
    blobs.close()


def test_a_blob_stays_as_it_is_while_it_is_taken(local: tuple[Repository, str]) -> None:
    blobs, some = BlobsAhead(local[0].reader), places(local[0])[: BUFFERS + 2]
    with blobs.taken(blobs.ask(some[0])) as lying:
        assert lying is not None
        before = bytes(lying[1])
        for place in some[1:] * 2:
            with blobs.taken(blobs.ask(place)) as other:
                assert other is not None
        assert lying[1] == before
    blobs.close()


def test_a_pack_whose_header_is_damaged_is_closed_again(local: tuple[Repository, str], tmp_path: Path) -> None:
    repository, _ = local
    place = places(repository)[0]
    info = repository.index.pack(place.pack)
    pack = tmp_path / "r" / pack_name(info.kind, info.digest)
    pack.write_bytes(bytes(64) + pack.read_bytes()[64:])
    before = open_files()
    with pytest.raises(BackstayError):
        repository.reader.lying_blob(place)
    assert {what for what in open_files() - before if str(tmp_path) in what[1]} == set()


def test_damage_leaves_the_ordinary_error(local: tuple[Repository, str], tmp_path: Path) -> None:
    repository, _ = local
    place = places(repository)[0]
    info = repository.index.pack(place.pack)
    pack = tmp_path / "r" / pack_name(info.kind, info.digest)
    data = bytearray(pack.read_bytes())
    data[info.blobs[place.ordinal].offset + 100] ^= 1
    pack.write_bytes(data)
    blobs = BlobsAhead(repository.reader)
    with blobs.taken(blobs.ask(place)) as lying, pytest.raises(CorruptedBackup, match="is damaged at blob"):
        repository.reader.blob(place, lying=lying)
    blobs.close()


def test_a_small_part_that_waits_to_be_written_does_not_keep_its_blob_in_memory(tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    for number in range(20):  # which fit into one bundle, as long as no part of another file is in it
        (source / f"part-{number}").write_bytes(random.Random(number).randbytes(50_000))
    repository, _ = repository_of(LocalStorage(tmp_path / "r"), source)
    with repository:
        reader = repository.reader
        data = random.Random(3).randbytes(50_000)
        chunk = repository.keyring.chunk_ids.of(data)
        place = reader.place(chunk)
        assert len(reader.blob(place)) > 10 * len(data)
        part = memoryview(reader.run([(chunk, len(data))], place))
        assert part == data
        other = repository.keyring.chunk_ids.of(random.Random(4).randbytes(50_000))
        assert reader.run([(chunk, len(data))], reader.place(other)) == data  # as if the index were wrong
        kept = part.obj
        assert isinstance(kept, bytes)
        assert len(kept) <= 2 * len(data)


class Kept(bytearray):
    """Bytes of which one can tell whether they are still in memory."""


def test_a_file_that_is_put_together_in_memory_does_not_keep_the_blobs_of_its_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "file").write_bytes(random.Random(1).randbytes(7 << 20))
    read = BlobReader.chunk
    given: list[weakref.ref[Kept]] = []
    most = [0]

    def noted(self: BlobReader, chunk: bytes) -> Buffer:
        data = read(self, chunk)
        if len(data) < 100_000:
            return data  # of a listing
        kept = Kept(data)
        given.append(weakref.ref(kept))
        most.append(sum(each() is not None for each in given))
        return memoryview(kept)

    repository, snapshot = repository_of(LocalStorage(tmp_path / "r"), source)
    with repository:
        monkeypatch.setattr(BlobReader, "chunk", noted)
        run_restore(repository, repository.snapshots.get(snapshot), tmp_path / "out", RestoreOptions())
    assert contents(tmp_path / "out" / str(source).lstrip("/")) == contents(source)
    assert len(given) > 4
    assert max(most) <= 2
