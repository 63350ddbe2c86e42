"""WAL beside snapshots: damage is found, copies have it, and what replaces its parts makes them superfluous."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from backstay.operations.copies.mirror import copy_objects
from backstay.operations.repair.heal import heal_from_copy
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.format import wal_name
from backstay.repository.repository import Repository
from backstay.repository.wal.slices import SLICE, end_name, slice_name
from tests.operations.bases import NAME, make_base, store_wal, wal_file
from tests.operations.copies import SECRET, SMALL_PACKS, Store, damaged, make_source, open_alone, open_mirrored
from tests.postgres.made_wal import SYSTEM as MADE

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


def test_damage_is_told_by_cluster_and_segment_and_how_much_was_read_is_counted(tmp_path: Path) -> None:
    store = Store("ours")
    with Repository.create(store, SECRET, environment=SMALL_PACKS) as repository:
        store_wal(repository, [1, 2, 3])
        make_base(repository, make_source(tmp_path / "source", files=1), 2)
        repository.wal.store(SYSTEM, WHOLE, b"of a cluster without a base backup")
    for name in (wal_name(MADE, wal_file(3)), wal_name(SYSTEM, WHOLE)):
        store.store(name, damaged(store.retrieve(name), random.Random(1)), overwrite=True)
    with open_alone(store) as repository:
        report = run_verify(repository, options=VerifyOptions(read_data=1))
        assert (report.wal_objects, report.wal_read) == (5, 5)
        details = {result.check: result.details for result in report.results}
        assert "5 of 5 WAL objects read" in details["integrity"]
        assert "WAL of 1 base backup" in details["completeness"]
        told = {finding.message.partition(":")[0] for finding in report.findings}
        assert told == {f"WAL {WHOLE} of cluster {SYSTEM} is damaged", f"WAL {wal_file(3)} of {NAME} is damaged"}
        report = run_verify(repository)
        assert (report.ok, report.wal_objects, report.wal_read) == (True, 5, 0)


def test_a_base_backup_without_its_wal_is_found_without_reading(tmp_path: Path) -> None:
    store, source = Store("ours"), make_source(tmp_path / "source", files=1)
    with Repository.create(store, SECRET, environment=SMALL_PACKS) as repository:
        store_wal(repository, range(1, 6))
        bases = [make_base(repository, source, number) for number in (2, 4)]
        assert run_verify(repository).ok
        store.delete(wal_name(MADE, wal_file(3)))  # a gap behind a base backup is none of its own
        assert run_verify(repository).ok
        store.delete(wal_name(MADE, wal_file(4)))
        repository.wal.store_part(MADE, wal_file(4), 0, b"only the first bytes")
        report = run_verify(repository)
        assert [(found.check, found.subject) for found in report.findings] == [("completeness", f"snapshot {bases[1]}")]
        assert f"WAL {wal_file(4)} of {NAME} is not there" in report.findings[0].message
        assert run_verify(repository, [bases[0]]).ok
        assert not run_verify(repository, [bases[1]]).ok


def test_a_binary_log_that_lacks_a_slice_is_found_without_reading(store: Store) -> None:
    log, slices = "binlog.000001", [slice_name("binlog.000001", number) for number in range(2)]
    with open_alone(store) as repository:
        for number, file in enumerate(slices):
            repository.wal.store(SYSTEM, file, b"x" * (SLICE if number == 0 else 7))
        assert told(store, read_data=0) == []  # one that is still received
        repository.wal.store(SYSTEM, end_name(log), b"%d" % (SLICE + 7))
        assert told(store, read_data=0) == []
    for file in slices:
        lost = store.retrieve(wal_name(SYSTEM, file))
        store.delete(wal_name(SYSTEM, file))
        assert told(store, read_data=0) == [f"binary log {log}"]
        store.store(wal_name(SYSTEM, file), lost)
    store.store(wal_name(SYSTEM, end_name(log)), b"damaged", overwrite=True)
    assert told(store, read_data=0) == [f"binary log {log}"]


def test_of_one_snapshot_only_its_own_wal_is_read(tmp_path: Path) -> None:
    store, source = Store("ours"), make_source(tmp_path / "source", files=1)
    with Repository.create(store, SECRET, environment=SMALL_PACKS) as repository:
        store_wal(repository, range(1, 6))
        ident = make_base(repository, source, 2)
        report = run_verify(repository, [ident], VerifyOptions(read_data=1))
        assert (report.ok, report.wal_objects, report.wal_read) == (True, 1, 1)
        name = wal_name(MADE, wal_file(2))
        store.store(name, damaged(store.retrieve(name), random.Random(1)), overwrite=True)
        assert not run_verify(repository, [ident], VerifyOptions(read_data=1)).ok


def test_what_lies_under_another_name_is_found(store: Store) -> None:
    name = wal_name(SYSTEM, WHOLE)
    store.store(wal_name(SYSTEM, PARTLY), store.retrieve(name))
    store.store("wal/readme", b"?")
    assert told(store) == sorted(["wal/readme", wal_name(SYSTEM, PARTLY)])


def test_a_part_that_its_whole_segment_contradicts_is_found_when_data_is_read(store: Store) -> None:
    with open_alone(store) as repository:
        repository.wal.store(SYSTEM, PARTLY, b"firstSECOND, and the end", parts=())  # as an older version did
    assert told(store, read_data=0) == []
    assert told(store) == [wal_name(SYSTEM, PARTLY, (5, 11))]


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
