"""Where a repository is created, and where not."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.errors import InvalidRequest
from backstay.repository.repository import Repository
from backstay.storage.local import LocalStorage
from backstay.storage.memory import MemoryStorage
from backstay.storage.mirrored import Mirrored
from backstay.trust.secrets import Secret

SECRET = Secret.new_keyfile()


@pytest.mark.parametrize("name", ["snapshots/holiday.txt", "packs/ab/x", "index/x", "gc/x", "wal/x"])
def test_what_it_would_take_for_its_own_is_refused_and_left_alone(name: str) -> None:
    store = MemoryStorage()
    store.store(name, b"not ours")
    with pytest.raises(InvalidRequest) as told:
        Repository.create(store, SECRET)
    assert str(told.value.cause).startswith(f"{name} lies there already")
    assert [info.name for info in store.list()] == [name]


def test_a_repository_that_lost_its_header_is_not_replaced() -> None:
    store = MemoryStorage()
    with Repository.create(store, SECRET) as repository:
        repository.wal.store(7, f"{1:024X}", b"a segment")
    before = {info.name for info in store.list()}
    store.delete("repo.json")
    with pytest.raises(InvalidRequest, match="no repository can be created"):
        Repository.create(store, SECRET)
    assert {info.name for info in store.list()} == before - {"repo.json"}


def test_places_that_are_not_there_yet_are_made(tmp_path: Path) -> None:
    places = [LocalStorage(tmp_path / name, create=True) for name in "ab"]
    with Repository.create(Mirrored(places), SECRET) as repository:
        repository.wal.store(7, f"{1:024X}", b"a segment")
    assert all((tmp_path / name / "repo.json").exists() for name in "ab")


def test_other_things_beside_it_are_nothing_to_it() -> None:
    store = MemoryStorage()
    store.store("holiday.txt", b"not ours")
    store.store("keys/slots/" + "0" * 64, b"of a creation that was interrupted")
    Repository.create(store, SECRET).close()
