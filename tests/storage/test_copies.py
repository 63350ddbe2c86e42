"""Reading what only its reader can tell to be whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backstay.errors import CorruptedBackup
from backstay.storage.backend import StorageBackend
from backstay.storage.cold_store import ColdStore
from backstay.storage.copies import from_any_copy, retrieve_valid
from backstay.storage.memory import MemoryStorage
from backstay.storage.mirrored import Mirrored
from backstay.storage.read_ahead import ReadAhead
from backstay.storage.tiered import Tiered
from backstay.testing import Fault, FaultyBackend

NAME = "drops/one"
PACK = "packs/ab/" + "ab" * 32


def decode(data: bytes) -> str:
    if data != b"whole":
        raise CorruptedBackup(f"{len(data)} bytes make no sense")
    return data.decode()


class Place(MemoryStorage):
    @property
    def url(self) -> str:
        return f"memory:{id(self)}"


def store_of(data: bytes) -> FaultyBackend:
    store = Place()
    store.store(NAME, data)
    return FaultyBackend(store)


@pytest.mark.parametrize("kind", ["bit_flip", "short_read"])
def test_what_was_damaged_on_its_way_is_read_again(kind: str) -> None:
    store = store_of(b"whole")
    store.script(Fault(kind=kind, operation="retrieve"))  # type: ignore[arg-type]
    assert retrieve_valid(store, NAME, decode) == "whole"


def _alone(far: StorageBackend) -> StorageBackend:
    return ReadAhead(far)


def _mirrored(far: StorageBackend) -> StorageBackend:
    return Mirrored([ReadAhead(far), ReadAhead(Place())])


def _hot(far: StorageBackend) -> StorageBackend:
    return Tiered(ReadAhead(far), ColdStore("memory:cold", "id", lambda *_: Place()))


def _cold(far: StorageBackend) -> StorageBackend:
    cold = ColdStore("memory:cold", "id", lambda *_: ReadAhead(far))
    cold.establish(lambda _: None)
    tiers = Tiered(Place(), cold)
    tiers.note(PACK, len(b"whole"))
    return tiers


@pytest.mark.parametrize("store", [_alone, _mirrored, _hot, _cold])
def test_what_was_read_ahead_and_damaged_on_its_way_is_read_again(
    store: Callable[[StorageBackend], StorageBackend],
) -> None:
    far = FaultyBackend(Place())
    far.store(PACK, b"whole")
    backend = store(far)
    backend.exists(PACK)
    assert decode(backend.retrieve(PACK, start=0, length=5)) == "whole"
    backend.forget_reads()
    far.script(Fault(kind="bit_flip", operation="retrieve"))
    assert from_any_copy(backend, lambda place: decode(place.retrieve(PACK, start=0, length=5))) == "whole"
    assert far.hits["bit_flip"] == 1


def test_what_lies_damaged_in_every_copy_is_told_as_it_was_first_read() -> None:
    for store in (store_of(b"not"), Mirrored([store_of(b"not"), store_of(b"either")])):
        with pytest.raises(CorruptedBackup, match="3 bytes"):
            retrieve_valid(store, NAME, decode)


def test_another_copy_is_read_when_the_first_one_is_damaged() -> None:
    assert retrieve_valid(Mirrored([store_of(b"not"), store_of(b"whole")]), NAME, decode) == "whole"
