"""The map of chunk places is disposable: damage to its file ends no command, and the next map is a good one."""

from __future__ import annotations

import os
import random
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backstay.core.pipeline import Workers
from backstay.errors import StorageUnavailable
from backstay.operations.snapshots.rewrite import DamageSurvey
from backstay.repository.format import RecordKind
from backstay.repository.index.environment import PlaceEnvironment
from backstay.repository.index.index import MemoryPlaceMap
from backstay.repository.index.place_map import LmdbPlaceMap
from backstay.repository.nodes import Content
from backstay.repository.repository import Environment, Repository
from backstay.storage.memory import MemoryStorage
from backstay.trust.secrets import Secret

SECRET = Secret("keyfile", bytes(32))
PACKS = 24
MEMORY = Path("/dev/shm")  # where nothing is waited for
PART = 4096  # a page of LMDB


class World:
    """A repository with some chunks in each of many packs, and its cache as it was left."""

    def __init__(self, place: Path) -> None:
        self.storage, self.place = MemoryStorage(), place
        self.chunks: dict[bytes, bytes] = {}
        self.random = random.Random(1)  # the same map in each run: LMDB does not take every damage
        environment = Environment(random=self.random.randbytes)
        Repository.create(self.storage, SECRET, environment=environment, cache=place / "cache").close()
        with self.opened() as repository:
            for _ in range(3):
                self.add(repository, PACKS // 3)
        shutil.copytree(place / "cache", place / "good")

    def opened(self) -> Repository:
        environment = Environment(threads=1, random=self.random.randbytes)
        return Repository.open(self.storage, SECRET, environment=environment, cache=self.place / "cache")

    def add(self, repository: Repository, packs: int = 1) -> None:
        numbers = random.Random(len(self.chunks))
        with repository.begin_session(), Workers(1, "seal") as workers:
            writer = repository.writer(workers)
            for _ in range(packs):
                for _ in range(10):
                    data = numbers.randbytes(50)
                    chunk = repository.keyring.chunk_ids.of(data)
                    self.chunks[chunk] = data
                    writer.put(RecordKind.DATA_PACK, chunk, data)
                writer.turn()
            writer.flush()
            for made, _ in writer.settled():
                if made:
                    repository.index.write(made)
            writer.close()

    @property
    def file(self) -> Path:
        [file] = self.place.glob("cache/**/data.mdb")
        return file

    def put_back(self) -> None:
        shutil.rmtree(self.place / "cache")
        shutil.copytree(self.place / "good", self.place / "cache")

    def damage(self, at: int) -> None:
        with self.file.open("r+b") as file:
            file.seek(at)
            file.write(bytes(PART))

    def read_all(self, repository: Repository) -> None:
        for chunk, data in self.chunks.items():
            assert bytes(repository.reader.chunk(chunk)) == data

    def is_whole(self) -> bool:
        """Whether the map on disk knows every chunk."""
        places = LmdbPlaceMap(self.file.parent)
        known = [any(True for _ in places.places(chunk)) for chunk in self.chunks]
        places.close()
        return all(known)


def parts(world: World) -> range:
    return range(0, world.file.stat().st_size, PART)


@pytest.fixture(scope="module")
def made() -> Iterator[World]:
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as place:
        yield World(Path(place))


@pytest.fixture
def world(made: World) -> Iterator[World]:
    yield made
    made.put_back()


def test_every_chunk_is_read_whichever_part_of_the_map_is_damaged(world: World) -> None:
    for at in parts(world):
        world.put_back()
        world.damage(at)
        with world.opened() as repository:
            world.read_all(repository)
            assert {info.digest for _, info in repository.index.packs()} == {
                repository.index.pack(place.pack).digest
                for chunk in world.chunks
                for place in repository.index.find_all(chunk)
            }
        assert world.is_whole(), at


def test_what_is_stored_over_a_damaged_map_is_found(world: World) -> None:
    for at in parts(world):
        world.put_back()
        world.damage(at)
        with world.opened() as repository:
            world.add(repository)
            world.read_all(repository)
        with world.opened() as repository:
            world.read_all(repository)


def test_a_map_that_was_cut_short_is_built_anew(world: World) -> None:
    for size in parts(world):
        world.put_back()
        os.truncate(world.file, size)
        with world.opened() as repository:
            world.read_all(repository)
        assert world.is_whole(), size


def survey(world: World, repository: Repository) -> None:
    """As the repair of snapshots does, which leaves out what is lost."""
    assert all(DamageSurvey(repository).has(Content(0, chunk)) for chunk in world.chunks)


@pytest.mark.parametrize("look", [World.read_all, survey])
def test_a_chunk_that_only_the_map_has_lost_counts_as_there(
    world: World, look: Callable[[World, Repository], None]
) -> None:
    chunk = next(iter(world.chunks))
    other = bytes([*chunk[:15], chunk[15] ^ 1])
    world.file.write_bytes(world.file.read_bytes().replace(chunk[:16], other))
    assert not world.is_whole()
    with world.opened() as repository:
        assert repository.index.find(chunk) is None
        look(world, repository)
        assert repository.index.search(bytes(32)) is None
    assert world.is_whole()


def test_a_pack_that_only_the_map_names_is_not_taken_for_missing(world: World) -> None:
    places = LmdbPlaceMap(world.file.parent)
    name, [number, *_] = next(iter(places.segments().items()))
    places.close()
    known, other = (name + (number ^ flip).to_bytes(8, "big") for flip in (0, 1))
    data = world.file.read_bytes()
    assert known in data
    world.file.write_bytes(data.replace(known, other))
    with world.opened() as repository:
        assert repository.hide_missing_packs() == set()
        assert number in {number for number, _ in repository.index.packs()}


def test_no_bit_of_the_record_of_a_pack_makes_it_seem_lost_or_damaged(world: World) -> None:
    data = world.file.read_bytes()
    with world.opened() as repository:
        digest = next(info.digest for _, info in repository.index.packs())
    for at in (8, 20, 31, 32, 40, 41, 60):
        changed = bytearray(data)
        for place in re.finditer(re.escape(digest), data):
            changed[place.start() + at] ^= 1
        world.put_back()
        world.file.write_bytes(changed)
        with world.opened() as repository:
            world.read_all(repository)
            assert digest in {info.digest for _, info in repository.index.packs()}, at


def test_damage_that_is_met_halfway_changes_no_pack_number_and_loses_nothing(world: World) -> None:
    """A backup remembers by their numbers which packs its snapshot needs."""
    for at in parts(world):
        world.put_back()
        with world.opened() as repository:
            numbers = {number: info.digest for number, info in repository.index.packs()}
            world.damage(at)
            repository.reload_index()
            world.read_all(repository)
            assert {number: info.digest for number, info in repository.index.packs()} == numbers


def test_where_no_map_can_be_made_one_in_memory_takes_its_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with world.opened() as repository:
        repository.reload_index()
        for at in parts(world)[2:]:
            world.damage(at)

        def refused(_: PlaceEnvironment) -> None:
            raise StorageUnavailable("others use it")

        monkeypatch.setattr(PlaceEnvironment, "discard", refused)
        repository.reload_index()
        world.read_all(repository)
        assert isinstance(repository.index._map, MemoryPlaceMap)
    monkeypatch.undo()
    with world.opened() as repository:
        world.read_all(repository)


def test_who_has_the_damaged_files_open_removes_no_others_that_took_their_place(world: World) -> None:
    first, second = world.opened(), world.opened()
    with first, second:
        for repository in (first, second):
            repository.reload_index()
        for at in parts(world)[2:]:
            world.damage(at)
        first.reload_index()
        made = world.file.stat().st_ino
        second.reload_index()
        assert world.file.stat().st_ino == made
        world.add(second)
        world.read_all(first)
