"""WAL beside snapshots: damage is found, copies have it, and what replaces its parts makes them superfluous."""

from __future__ import annotations

import random

import pytest

from backstay.operations.heal import heal_from_copy
from backstay.operations.mirror_copy import copy_objects
from backstay.operations.verify import VerifyOptions, run_verify
from backstay.repository.format import wal_name
from backstay.repository.repository import Repository
from tests.operations.copies import SECRET, SMALL_PACKS, Store, damaged, open_alone, open_mirrored

SYSTEM = 7
WHOLE, PARTLY = f"{1:024X}", f"{2:024X}"


@pytest.fixture
def store() -> Store:
    """A repository with a name, a whole segment and two parts of the next one."""
    made = Store("ours")
    with Repository.create(made, SECRET, environment=SMALL_PACKS) as repository:
        repository.wal.bind("main", SYSTEM, repository.clock)
        repository.wal.store(SYSTEM, WHOLE, b"whole" * 1000)
        repository.wal.store_part(SYSTEM, PARTLY, 0, b"first")
        repository.wal.store_part(SYSTEM, PARTLY, 5, b"second")
    return made


def told(store: Store, read_data: float = 1.0) -> list[str]:
    with open_alone(store) as repository:
        report = run_verify(repository, options=VerifyOptions(read_data=read_data))
    return sorted(finding.subject for finding in report.findings if finding.severity == "error")


def test_damage_is_found_when_data_is_read(store: Store) -> None:
    assert told(store) == []
    names = [info.name for info in store.list("wal/")]
    assert len(names) == 4
    for name in names:
        store.store(name, damaged(store.retrieve(name), random.Random(1)), overwrite=True)
    assert told(store, read_data=0) == []
    assert told(store) == sorted(names)


def test_what_lies_under_another_name_is_found(store: Store) -> None:
    name = wal_name(SYSTEM, WHOLE)
    store.store(wal_name(SYSTEM, PARTLY), store.retrieve(name))
    store.store("wal/readme", b"?")
    assert told(store) == sorted(["wal/readme", wal_name(SYSTEM, PARTLY)])


def test_a_copy_has_it_and_drops_parts_that_became_whole(store: Store) -> None:
    target = Store("copy")
    with open_alone(store) as repository:
        copy_objects(repository, target)
        assert {info.name for info in target.list("wal/")} == {info.name for info in store.list("wal/")}
        repository.wal.store(SYSTEM, PARTLY, b"firstsecond, and the end")
        repository.wal.forget_parts(SYSTEM, PARTLY, repository.wal.files(SYSTEM)[PARTLY])
        copy_objects(repository, target)
        assert {info.name for info in target.list("wal/")} == {info.name for info in store.list("wal/")}


def test_a_copy_brings_back_segments_but_no_parts_of_whole_ones(store: Store) -> None:
    other = Store("other", store.objects())
    with open_alone(store) as repository:
        repository.wal.store(SYSTEM, PARTLY, b"firstsecond, and the end")
        repository.wal.forget_parts(SYSTEM, PARTLY, repository.wal.files(SYSTEM)[PARTLY])
        segment = wal_name(SYSTEM, WHOLE)
        store.delete(segment)
    with open_mirrored(store, other) as repository:
        assert heal_from_copy(repository, store, other).objects_healed == (segment,)
