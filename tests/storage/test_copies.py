"""Reading what only its reader can tell to be whole."""

from __future__ import annotations

import pytest

from backstay.errors import CorruptedBackup
from backstay.storage.copies import retrieve_valid
from backstay.storage.memory import MemoryStorage
from backstay.storage.mirrored import Mirrored
from backstay.testing import Fault, FaultyBackend

NAME = "drops/one"


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


def test_what_lies_damaged_in_every_copy_is_told_as_it_was_first_read() -> None:
    for store in (store_of(b"not"), Mirrored([store_of(b"not"), store_of(b"either")])):
        with pytest.raises(CorruptedBackup, match="3 bytes"):
            retrieve_valid(store, NAME, decode)


def test_another_copy_is_read_when_the_first_one_is_damaged() -> None:
    assert retrieve_valid(Mirrored([store_of(b"not"), store_of(b"whole")]), NAME, decode) == "whole"
