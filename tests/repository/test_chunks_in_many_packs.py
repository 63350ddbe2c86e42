"""A chunk that lies in more than one pack is read as long as one of them has it, and what is met on the way is told."""

from __future__ import annotations

from itertools import product
from typing import Final, Literal, TypeAlias

import pytest

from backstay.core.pipeline import Workers
from backstay.errors import CorruptedBackup, ObjectFrozen, TierNotAttached
from backstay.repository.format import RecordKind, pack_name
from backstay.repository.index.index import Place
from backstay.repository.repository import Repository
from backstay.storage.memory import MemoryStorage
from backstay.trust.secrets import Secret

PACKS: Final = 3
DATA: Final = b"what is wanted" * 1000
SECRET: Final = Secret.new_keyfile()
State: TypeAlias = Literal["good", "damaged", "gone", "away", "frozen"]
STATES: Final[tuple[State, ...]] = ("good", "damaged", "gone", "away", "frozen")


class Store(MemoryStorage):
    """Of which some packs do not answer."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: dict[str, Exception] = {}

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        if name in self.failing:
            raise self.failing[name]
        return super().retrieve(name, start=start, length=length)


def stored(store: Store, packs: int) -> bytes:
    """Put the chunk into as many packs; its id."""
    with Repository.create(store, SECRET) as repository:
        chunk = repository.keyring.chunk_ids.of(DATA)
        for _ in range(packs):
            add(repository, chunk)
            for place in repository.index.find_all(chunk):
                repository.index.distrust(place.pack)
    return chunk


def add(repository: Repository, chunk: bytes) -> None:
    with repository.begin_session(), Workers(1, "seal") as workers:
        writer = repository.writer(workers)
        writer.put(RecordKind.DATA_PACK, chunk, DATA)
        writer.flush()
        for packs, _ in writer.settled():
            repository.index.write(packs)
        writer.close()


def name_of(repository: Repository, place: Place) -> str:
    info = repository.index.pack(place.pack)
    return pack_name(info.kind, info.digest)


def spoil(store: Store, repository: Repository, place: Place, state: State) -> None:
    name = name_of(repository, place)
    if state == "damaged":
        data = bytearray(store.retrieve(name))
        data[repository.index.pack(place.pack).blobs[place.ordinal].offset + 20] ^= 1
        store.store(name, data, overwrite=True)
    elif state == "gone":
        store.delete(name)
    elif state == "away":
        store.failing[name] = TierNotAttached("away")
    elif state == "frozen":
        store.failing[name] = ObjectFrozen("frozen")


@pytest.mark.parametrize("states", list(product(STATES, repeat=PACKS)), ids="-".join)
def test_one_good_pack_is_enough(states: tuple[State, ...]) -> None:
    store = Store()
    chunk = stored(store, PACKS)
    with Repository.open(store, SECRET) as repository:
        first = repository.reader.place(chunk)
        order = [first, *(place for place in repository.index.find_all(chunk) if place != first)]
        assert len(order) == PACKS
        for place, state in zip(order, states, strict=True):
            spoil(store, repository, place, state)
        if "good" in states:
            assert bytes(repository.reader.chunk(chunk)) == DATA
            met = states[: states.index("good")]
        else:
            told = {"damaged": CorruptedBackup, "gone": CorruptedBackup, "away": TierNotAttached}
            with pytest.raises(told.get(states[0], ObjectFrozen)):
                repository.reader.chunk(chunk)
            met = states
        trusted = repository.index.find_reusable(chunk)
        damaged = [place for place, state in zip(order, met, strict=False) if state == "damaged"]
        assert (trusted is None) == (len(damaged) == PACKS)
        assert trusted not in damaged


def test_a_chunk_that_was_moved_is_found_where_it_went() -> None:
    store = Store()
    chunk = stored(store, 1)
    with Repository.open(store, SECRET) as reading, Repository.open(store, SECRET) as moving:
        before = reading.reader.place(chunk)
        moving.index.distrust(moving.reader.place(chunk).pack)
        add(moving, chunk)
        store.delete(name_of(reading, before))
        assert bytes(reading.reader.chunk(chunk)) == DATA


def test_a_chunk_that_no_segment_names_is_told() -> None:
    store = Store()
    stored(store, 1)
    with Repository.open(store, SECRET) as repository, pytest.raises(CorruptedBackup, match="is missing"):
        repository.reader.chunk(bytes(32))
