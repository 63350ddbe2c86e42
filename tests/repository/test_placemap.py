"""The local map of chunk places gives what the segments say, whatever came and went before."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from backstay.codec.compression import Compressor
from backstay.repository.format import BlobKind, RecordKind
from backstay.repository.index import MemoryPlaceMap
from backstay.repository.pack import PackBuilder, StoredPack
from backstay.repository.placemap import FILTER_AFTER, MERGE_RUNS, LmdbPlaceMap


def stored(seed: int) -> tuple[bytes, StoredPack]:
    """A pack with one chunk, and the chunk's id."""
    rng = random.Random(seed)
    chunk = rng.randbytes(32)
    builder = PackBuilder(RecordKind.DATA_PACK, repository=bytes(16), epoch=1, key=bytes(32), random=rng.randbytes)
    builder.append(builder.seal(builder.reserve(), BlobKind.CHUNK, chunk, b"data", (), Compressor()))
    return chunk, builder.finish()


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
