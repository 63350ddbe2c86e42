"""The local map of chunk places gives what the segments say, whatever came and went before."""

from __future__ import annotations

import gc
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from backstay.codec.compression import Compressor
from backstay.core.mapped_file import MappedFile
from backstay.errors import CorruptedBackup, StorageUnavailable
from backstay.repository.format import BlobKind, RecordKind
from backstay.repository.index.environment import MAX_READERS, shared
from backstay.repository.index.index import MemoryPlaceMap, PlacesDamaged
from backstay.repository.index.place_map import FILTER_AFTER, MERGE_RUNS, LmdbPlaceMap
from backstay.repository.packs.pack import PackBuilder, PackTable, StoredPack, column
from tests.descriptors import open_files
from tests.mappings import resident


def stored(seed: int) -> tuple[bytes, StoredPack]:
    """A pack with one chunk, and the chunk's id."""
    rng = random.Random(seed)
    chunk = rng.randbytes(32)
    builder = PackBuilder(RecordKind.DATA_PACK, repository=bytes(16), epoch=1, key=bytes(32), random=rng.randbytes)
    builder.append(builder.seal(builder.reserve(), BlobKind.CHUNK, chunk, b"data", (), Compressor()))
    return chunk, builder.finish()


def stored_many(seed: int, count: int) -> tuple[list[bytes], StoredPack]:
    """A pack with as many chunks of one byte as there may be, and their ids."""
    rng = random.Random(seed)
    ids = rng.randbytes(32 * count)
    table = PackTable(
        kinds=bytes([BlobKind.BUNDLE]),
        codecs=b"\0",
        ids=rng.randbytes(32),
        stored=column([count]),
        raw=column([count]),
        members=column([count]),
        member_ids=ids,
        member_lengths=column([1] * count),
    )
    pack = StoredPack(rng.randbytes(32), RecordKind.DATA_PACK, 2 * count, 1, table)
    return [ids[at : at + 32] for at in range(0, len(ids), 32)], pack


def open_in(directory: Path) -> list[str]:
    return [name for _, name in open_files() if str(directory) in name]


def test_both_maps_know_every_place_of_a_chunk_in_many_packs(tmp_path: Path) -> None:
    rng = random.Random(1)
    chunks = [rng.randbytes(32) for _ in range(20)]
    packs = []
    for _ in range(4):
        builder = PackBuilder(RecordKind.DATA_PACK, repository=bytes(16), epoch=1, key=bytes(32), random=rng.randbytes)
        for chunk in rng.sample(chunks, 12):
            data = bytes(rng.randrange(1, 5000))
            builder.append(builder.seal(builder.reserve(), BlobKind.CHUNK, chunk, data, (), Compressor()))
        packs.append(builder.finish())
    in_memory, on_disk = MemoryPlaceMap(), LmdbPlaceMap(tmp_path / "map")
    for number, pack in enumerate(packs):
        for places in (in_memory, on_disk):
            places.add([(b"%d" % number, [pack])])
    for chunk in [*chunks, bytes(32)]:
        assert sorted(in_memory.places(chunk)) == sorted(on_disk.places(chunk))
        assert in_memory.may_hold(chunk) == any(True for _ in on_disk.places(chunk))
        for number in range(len(packs)):
            assert in_memory.place_in(chunk, {number}) == on_disk.place_in(chunk, {number})
    on_disk.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "map"


def test_a_pack_that_comes_back_after_a_merge_has_its_places(directory: Path) -> None:
    """As when a lost pack is put back, and the index is repaired both times."""
    chunk, pack = stored(0)
    places = LmdbPlaceMap(directory)
    places.add([(b"first", [pack])])
    places.forget([b"first"])
    for seed in range(1, MERGE_RUNS + 2):
        places.add([(b"%d" % seed, [stored(seed)[1]])])
    places.close()  # merges
    places = LmdbPlaceMap(directory)
    assert list(places.places(chunk)) == []
    places.add([(b"again", [pack])])
    [place] = places.places(chunk)
    assert places.pack(place.pack).digest == pack.digest
    assert places.segments()[b"again"] == [place.pack]
    places.close()


def test_a_pack_that_another_segment_names_keeps_its_places(directory: Path) -> None:
    chunk, pack = stored(0)
    places = LmdbPlaceMap(directory)
    places.add([(b"first", [pack]), (b"second", [pack])])
    places.forget([b"first"])
    for seed in range(1, MERGE_RUNS + 2):
        places.add([(b"%d" % seed, [stored(seed)[1]])])
    places.close()
    places = LmdbPlaceMap(directory)
    [place] = places.places(chunk)
    assert places.pack(place.pack).digest == pack.digest
    places.close()


def test_a_filter_answers_for_those_who_ask_often_and_never_denies_what_is_there(directory: Path) -> None:
    places = LmdbPlaceMap(directory)
    places.add([(b"first", [stored(0)[1]])])
    places.close()
    places = LmdbPlaceMap(directory)  # knows nothing of what it holds, until it was asked often
    strangers = [random.Random(-seed).randbytes(32) for seed in range(1, FILTER_AFTER + 2)]
    assert all(map(places.may_hold, strangers[:FILTER_AFTER]))
    assert sum(map(places.may_hold, strangers)) < len(strangers) / 100
    assert places.may_hold(stored(0)[0])
    for seed in range(1, 40):  # it has to grow
        places.add([(b"%d" % seed, [stored(seed)[1]])])
        assert places.may_hold(stored(seed)[0])
    places.close()


def test_places_come_from_the_packs_that_count_whichever_run_answered_last(directory: Path) -> None:
    places = LmdbPlaceMap(directory)
    packs = {seed: stored(seed) for seed in range(5)}
    for seed, (_, pack) in packs.items():
        places.add([(b"%d" % seed, [pack])])
    numbers = {seed: places.segments()[b"%d" % seed][0] for seed in packs}
    every = set(numbers.values())
    for seed in random.Random(4).choices(range(5), k=200):
        found = places.place_in(packs[seed][0], every)
        assert found is not None
        assert found.pack == numbers[seed]
        assert [*places.places(packs[seed][0])] == [found]
        assert places.place_in(packs[seed][0], every - {numbers[seed]}) is None
    assert places.place_in(bytes(32), every) is None
    places.close()


def test_two_maps_of_one_directory_work_side_by_side_in_one_process(directory: Path) -> None:
    """As when a service reads a repository while a job writes to it."""
    first, second = LmdbPlaceMap(directory), LmdbPlaceMap(directory)
    chunk, pack = stored(0)
    second.add([(b"first", [pack])])
    assert b"first" in first.segments()  # what another has added is no news that must be fetched ...
    [place] = first.places(chunk)  # ... and is found
    assert first.pack(place.pack).digest == pack.digest
    second.close()
    second.close()  # one too many takes nothing from others
    first.add([(b"second", [stored(1)[1]])])
    third = LmdbPlaceMap(directory / ".." / directory.name)
    assert set(third.segments()) == {b"first", b"second"}
    third.close()
    first.close()


def test_what_one_map_forgets_while_another_reads_is_still_known_to_that(directory: Path) -> None:
    reading, writing = LmdbPlaceMap(directory), LmdbPlaceMap(directory)
    chunk, pack = stored(0)
    reading.add([(b"first", [pack])])
    [place] = reading.places(chunk)
    writing.forget([b"first"])
    for seed in range(1, MERGE_RUNS + 2):
        writing.add([(b"%d" % seed, [stored(seed)[1]])])
    writing.close()  # merges
    assert reading.pack(place.pack).digest == pack.digest
    reading.close()


def test_packs_that_somebody_reads_outlive_a_merge_of_others(directory: Path) -> None:
    """As when a copy of the repository, which lacks them, is opened during a long backup."""
    reading, writing = LmdbPlaceMap(directory), LmdbPlaceMap(directory)
    chunk, pack = stored(0)
    reading.add([(b"first", [pack])])
    [number] = reading.segments()[b"first"]
    for seed in range(1, MERGE_RUNS + 2):
        writing.add([(b"%d" % seed, [stored(seed)[1]])])
    writing.forget([b"first"])
    writing.close()  # merges
    assert b"first" not in reading.segments()
    assert reading.pack(number).digest == pack.digest
    assert reading.place_in(chunk, {number}) is not None
    for seed in range(20, MERGE_RUNS + 22):
        reading.add([(b"%d" % seed, [stored(seed)[1]])])
    reading.close()  # merges, and is the last
    alone = LmdbPlaceMap(directory)
    assert alone.number(pack.digest) is None
    assert not [*alone.places(chunk)]
    alone.close()


def test_the_memory_of_a_writer_stays_as_it_is_however_large_the_map(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = 1 << 20
    monkeypatch.setattr("backstay.repository.index.environment._HELD", held)
    monkeypatch.setattr("backstay.repository.index.environment._LOOKUPS_HELD", 4)
    monkeypatch.setattr("backstay.repository.index.environment._PORTION", 1000)
    chunks, pack = stored_many(1, 100_000)
    places = LmdbPlaceMap(directory)
    places.add([(b"first", [pack])])
    places.close()
    file = directory / "data.mdb"
    assert file.stat().st_size > 4 * held
    places, most = LmdbPlaceMap(directory), 0
    for asked, chunk in enumerate(chunks[: 2 * FILTER_AFTER]):  # half of them before there is a filter, and it is read
        assert places.may_hold(chunk)
        [place] = places.places(chunk)
        assert places.place_in(chunk, {place.pack}) == place
        if asked > FILTER_AFTER and not asked % 7:
            most = max(most, resident(file))
    assert 0 < most <= held
    for seed in range(MERGE_RUNS + 1):
        places.add([(b"%d" % seed, [stored(seed)[1]])])
    places.close()  # merges
    again = LmdbPlaceMap(directory)
    assert all(any(again.places(chunk)) for chunk in chunks[::100])
    again.close()


def test_what_is_closed_lets_go_of_nothing_any_more(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its addresses may be those of something else by now, whose memory would be lost."""
    let_go: list[MappedFile] = []

    def noted(self: MappedFile) -> None:
        let_go.append(self)

    monkeypatch.setattr(MappedFile, "let_go", noted)
    environment = shared(directory)
    assert list(environment.read_through(iter([1]))) == [1]
    assert len(let_go) == 1
    environment.release()
    assert list(environment.read_through(iter([1]))) == [1]
    assert len(let_go) == 1


def test_a_map_that_was_dropped_without_closing_does_not_keep_its_files_open(directory: Path) -> None:
    LmdbPlaceMap(directory)
    gc.collect()
    assert not open_in(directory)
    LmdbPlaceMap(directory).close()


def test_a_directory_that_goes_elsewhere_while_it_is_open_is_let_go_all_the_same(directory: Path) -> None:
    places = LmdbPlaceMap(directory)
    moved = directory.with_name("moved")
    directory.rename(moved)
    directory.symlink_to(moved)
    places.add([(b"first", [stored(0)[1]])])
    second = LmdbPlaceMap(moved)  # the same files
    assert set(second.segments()) == {b"first"}
    second.close()
    places.close()
    assert not open_in(directory.parent)


def test_a_map_that_is_removed_while_it_is_open_is_made_anew_by_the_next(directory: Path) -> None:
    """As errors of the cache advise; a service may have it open for days."""
    old = LmdbPlaceMap(directory)
    shutil.rmtree(directory)
    new = LmdbPlaceMap(directory)
    new.add([(b"first", [stored(0)[1]])])
    assert old.segments() == {}
    old.close()
    new.close()
    assert not open_in(directory.parent)
    kept = LmdbPlaceMap(directory)
    assert set(kept.segments()) == {b"first"}
    kept.close()


def test_more_maps_than_there_may_be_at_once_are_refused_and_leave_nothing_open(directory: Path) -> None:
    places = [LmdbPlaceMap(directory) for _ in range(MAX_READERS)]
    with pytest.raises(StorageUnavailable, match="cannot be used"):
        LmdbPlaceMap(directory)
    for one in places:
        one.close()
    assert not open_in(directory.parent)


def test_a_damaged_map_is_made_anew(directory: Path) -> None:
    directory.mkdir()
    (directory / "data.mdb").write_bytes(b"damaged" * 4096)
    places = LmdbPlaceMap(directory)
    assert places.segments() == {}
    places.close()


@pytest.mark.parametrize("on_disk", [False, True])
def test_two_packs_that_would_go_by_one_number_are_refused(directory: Path, on_disk: bool) -> None:
    places = LmdbPlaceMap(directory) if on_disk else MemoryPlaceMap()
    _, pack = stored(0)
    places.add([(b"first", [pack])])
    with pytest.raises(CorruptedBackup, match="nearly the same name"):
        places.add([(b"second", [replace(pack, digest=pack.digest[:8] + bytes(24))])])
    places.close()


def test_whatever_was_changed_in_the_record_of_a_pack_the_map_is_told_to_be_damaged(directory: Path) -> None:
    _, pack = stored(0)
    places = LmdbPlaceMap(directory)
    places.add([(b"first", [pack])])
    [number] = places.segments()[b"first"]
    places.close()
    file = directory / "data.mdb"
    good = file.read_bytes()
    for at in range(0, 140, 7):  # the digest, the check and the rest
        changed = bytearray(good)
        changed[good.index(pack.digest) + at] ^= 1
        file.write_bytes(changed)
        places = LmdbPlaceMap(directory)
        with pytest.raises(PlacesDamaged):
            places.pack(number)
        places.close()
