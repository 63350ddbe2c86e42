"""WAL in a repository: whole files and growing parts, each once, under names that cannot lie."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import CorruptedBackup, IdentityMismatch, InvalidRequest, ObjectNotFound, WalConflict
from backstay.repository.format import wal_gap_name, wal_name
from backstay.repository.repository import Repository
from backstay.repository.wal.slices import end_name, slice_name, slice_of
from backstay.repository.wal.store import MAX_FILE, GapRecord, StoredFile, WalStore, check_file, whole_of
from backstay.storage.names import check_name
from backstay.testing import MemoryStorage
from tests.operations.copies import SECRET

SYSTEM = 7313317639881522009
SEGMENT = "0000000100000000000000AB"


@pytest.fixture
def backend() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def repository(backend: MemoryStorage) -> Iterator[Repository]:
    with Repository.create(backend, SECRET) as repository:
        yield repository


@pytest.fixture
def wal(repository: Repository) -> WalStore:
    return repository.wal


def test_a_file_is_stored_once_and_never_replaced(wal: WalStore) -> None:
    assert wal.store(SYSTEM, SEGMENT, b"log")
    assert not wal.store(SYSTEM, SEGMENT, b"log")
    with pytest.raises(WalConflict, match="other bytes"):
        wal.store(SYSTEM, SEGMENT, b"lag")
    files = wal.files(SYSTEM)
    assert list(files) == [SEGMENT]
    assert files[SEGMENT].reach is None
    assert wal.read(SYSTEM, SEGMENT, files[SEGMENT]) == b"log"
    assert wal.systems() == [SYSTEM]
    assert wal.files(SYSTEM + 1) == {}


def test_parts_join_until_the_segment_is_whole(wal: WalStore) -> None:
    wal.store_part(SYSTEM, SEGMENT, 0, b"ab")
    wal.store_part(SYSTEM, SEGMENT, 2, b"cd")
    wal.store_part(SYSTEM, SEGMENT, 1, b"bcde")  # of another receiver, with other ends
    wal.store_part(SYSTEM, SEGMENT, 9, b"j")  # behind a hole: it does not count
    with pytest.raises(WalConflict):
        wal.store_part(SYSTEM, SEGMENT, 2, b"xx")
    stored = wal.files(SYSTEM)[SEGMENT]
    assert stored.reach == 5
    assert wal.read(SYSTEM, SEGMENT, stored) == b"abcde"
    wal.store(SYSTEM, SEGMENT, b"abcdefghij")
    assert wal.files(SYSTEM)[SEGMENT].reach is None
    wal.forget_parts(SYSTEM, SEGMENT, wal.files(SYSTEM)[SEGMENT])
    assert wal.files(SYSTEM)[SEGMENT].parts == []
    # Who listed the parts before reads the segment now.
    assert wal.read(SYSTEM, SEGMENT, stored) == b"abcdefghij"
    wal.remove(SYSTEM, SEGMENT, wal.files(SYSTEM)[SEGMENT])
    assert wal.files(SYSTEM) == {}
    with pytest.raises(ObjectNotFound):
        wal.read(SYSTEM, SEGMENT, stored)


def test_a_segment_with_other_bytes_than_its_parts_is_refused(wal: WalStore) -> None:
    wal.store_part(SYSTEM, SEGMENT, 0, b"ab")
    wal.store_part(SYSTEM, SEGMENT, 2, b"cd")
    for other in (b"abXdefghij", b"abc"):  # one is too short for what was acknowledged of it
        with pytest.raises(WalConflict, match="other bytes") as refused:
            wal.store(SYSTEM, SEGMENT, other)
        assert "from byte 2 to 4" in refused.value.cause
    stored = wal.files(SYSTEM)[SEGMENT]
    assert (stored.whole, wal.read(SYSTEM, SEGMENT, stored)) == (False, b"abcd")
    assert wal.store(SYSTEM, SEGMENT, b"abcdefghij")


def test_a_segment_takes_the_place_of_a_damaged_part(wal: WalStore, backend: MemoryStorage) -> None:
    wal.store_part(SYSTEM, SEGMENT, 0, b"ab")
    backend.store(wal_name(SYSTEM, SEGMENT, (0, 2)), b"damaged", overwrite=True)
    assert wal.store(SYSTEM, SEGMENT, b"abc")


def test_a_file_is_removed_with_its_parts(wal: WalStore, backend: MemoryStorage) -> None:
    wal.store_part(SYSTEM, SEGMENT, 0, b"ab")
    wal.store(SYSTEM, SEGMENT, b"abc")
    wal.remove(SYSTEM, SEGMENT, wal.files(SYSTEM)[SEGMENT])
    assert not list(backend.list("wal/"))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 20)), max_size=8))
def test_the_reach_of_parts_is_where_the_first_hole_begins(spans: list[tuple[int, int]]) -> None:
    stored = StoredFile(parts=[(start, start + length) for start, length in spans])
    there = {at for start, length in spans for at in range(start, start + length)}
    assert stored.reach == next(at for at in range(100) if at not in there)


def test_parts_that_contradict_each_other_are_damage(wal: WalStore) -> None:
    wal.store_part(SYSTEM, SEGMENT, 0, b"abcd")
    wal.store_part(SYSTEM, SEGMENT, 2, b"XXX")
    with pytest.raises(CorruptedBackup, match="contradict"):
        wal.read(SYSTEM, SEGMENT, wal.files(SYSTEM)[SEGMENT])


@pytest.mark.parametrize(
    "file", ["", "x", "../../packs/aa", SEGMENT.lower(), SEGMENT + "0", SEGMENT + ".partial", "1.history"]
)
def test_names_that_postgres_does_not_give_are_refused(wal: WalStore, file: str) -> None:
    with pytest.raises(InvalidRequest, match="no WAL file"):
        wal.store(SYSTEM, file, b"")


@pytest.mark.parametrize("file", [SEGMENT, "00000002.history", SEGMENT + ".00000028.backup"])
def test_names_that_postgres_gives_are_names_of_objects(file: str) -> None:
    assert check_file(file) == file
    check_name(wal_name(SYSTEM, file))
    assert WalStore.is_name(wal_name(SYSTEM, file))


@pytest.mark.parametrize("file", [slice_name("binlog.000001", 0), end_name("mysql-bin.1234567")])
def test_slices_of_a_binary_log_are_names_of_objects_and_no_files_of_postgres(wal: WalStore, file: str) -> None:
    check_name(wal_name(SYSTEM, file))
    wal.store_part(SYSTEM, file, 0, b"ab")
    wal.store(SYSTEM, file, b"abc")
    assert wal.files(SYSTEM) == {file: StoredFile(whole=True, parts=[(0, 2)])}
    assert whole_of(wal_name(SYSTEM, file, (0, 2))) == wal_name(SYSTEM, file)
    with pytest.raises(InvalidRequest):
        check_file(file)


def test_slices_are_told_from_what_only_looks_like_them() -> None:
    assert slice_of(slice_name("a.b.000001", 99999)) == ("a.b.000001", 99999)
    assert slice_of(end_name("binlog.000001")) == ("binlog.000001", None)
    for other in (SEGMENT, "binlog.000001", "binlog.s00001", ".000001.s00001", "a/b.000001.s00001", "b.000001.s1"):
        assert slice_of(other) is None


def test_what_is_too_large_is_refused(wal: WalStore) -> None:
    with pytest.raises(InvalidRequest, match="too large"):
        wal.store(SYSTEM, SEGMENT, bytes(MAX_FILE + 1))


def test_an_object_under_another_name_or_changed_is_damage(wal: WalStore, backend: MemoryStorage) -> None:
    wal.store(SYSTEM, SEGMENT, b"log")
    name, other = wal_name(SYSTEM, SEGMENT), wal_name(SYSTEM, SEGMENT[:-1] + "C")
    data = backend.retrieve(name)
    backend.store(other, data)
    with pytest.raises(CorruptedBackup, match="other WAL"):
        wal.check_stored(other)
    backend.store(name, data[:-1] + bytes([data[-1] ^ 1]), overwrite=True)
    with pytest.raises(CorruptedBackup):
        wal.check_stored(name)
    backend.store("wal/foreign", b"?")
    with pytest.raises(CorruptedBackup, match="foreign"):
        wal.check_stored("wal/foreign")
    assert set(wal.objects()) == {name, other, "wal/foreign"}


def test_a_part_may_go_while_it_is_checked(wal: WalStore) -> None:
    part = wal_name(SYSTEM, SEGMENT, (0, 2))
    with pytest.raises(ObjectNotFound):
        wal.check_stored(part)
    wal.store(SYSTEM, SEGMENT, b"abc")
    wal.check_stored(part)
    assert whole_of(part) == wal_name(SYSTEM, SEGMENT)
    assert whole_of(wal_name(SYSTEM, SEGMENT)) is None


def test_a_name_belongs_to_one_cluster(repository: Repository, wal: WalStore, backend: MemoryStorage) -> None:
    assert wal.bound("shop") is None
    wal.bind("shop", SYSTEM, repository.clock)
    wal.bind("shop", SYSTEM, repository.clock)
    with pytest.raises(IdentityMismatch, match="shop"):
        wal.bind("shop", SYSTEM + 1, repository.clock)
    wal.bind("other", SYSTEM + 1, repository.clock)
    assert wal.names() == {"other": SYSTEM + 1, "shop": SYSTEM}
    one, two = (info.name for info in backend.list("wal/names/"))
    assert "shop" not in one + two
    backend.store(one, backend.retrieve(two), overwrite=True)
    with pytest.raises(CorruptedBackup, match="another name"):
        wal.names()


@pytest.mark.parametrize("stored", [(0, 4), (0, 9), None], ids=["shorter part", "longer part", "whole"])
@pytest.mark.parametrize("given", [b"abcdef", b"abcdefghij"], ids=["beginning", "whole"])
def test_what_is_stored_and_damaged_keeps_nobody_from_storing_it_again(
    wal: WalStore, backend: MemoryStorage, stored: tuple[int, int] | None, given: bytes
) -> None:
    whole = b"abcdefghij"
    if stored is None:
        wal.store(SYSTEM, SEGMENT, whole)
    else:
        wal.store_part(SYSTEM, SEGMENT, stored[0], whole[stored[0] : stored[1]])
    backend.store(wal_name(SYSTEM, SEGMENT, stored), b"damaged", overwrite=True)
    if given == whole:
        assert wal.store(SYSTEM, SEGMENT, given)
        assert wal.read(SYSTEM, SEGMENT, wal.find(SYSTEM, SEGMENT)) == whole
    else:
        assert wal.store_beginning(SYSTEM, SEGMENT, given)
        assert backend.exists(wal_name(SYSTEM, SEGMENT, (0, len(given))))


def test_a_beginning_contradicts_what_can_be_read_beside_a_damaged_part(wal: WalStore, backend: MemoryStorage) -> None:
    wal.store_part(SYSTEM, SEGMENT, 0, b"abc")
    wal.store_part(SYSTEM, SEGMENT, 3, b"def")
    backend.store(wal_name(SYSTEM, SEGMENT, (0, 3)), b"damaged", overwrite=True)
    with pytest.raises(WalConflict):
        wal.store_beginning(SYSTEM, SEGMENT, b"abcX")
    assert wal.store_beginning(SYSTEM, SEGMENT, b"abcd")


def test_what_somebody_knows_of_one_gap_says_nothing_of_another(wal: WalStore, backend: MemoryStorage) -> None:
    known = GapRecord(SYSTEM, 1 << 24, 2 << 24, 1, "ann", "a disk was full")
    assert wal.acknowledge_gap(known)
    stored = backend.retrieve(wal_gap_name(SYSTEM, known.from_lsn, known.to_lsn))
    for system, to_lsn in ((SYSTEM, 9 << 24), (SYSTEM + 1, known.to_lsn)):
        name = wal_gap_name(system, known.from_lsn, to_lsn)
        backend.store(name, stored)
        with pytest.raises(CorruptedBackup, match="about another gap"):
            wal.acknowledged_gap(system, known.from_lsn, to_lsn)
        with pytest.raises(CorruptedBackup, match="about another gap"):
            wal.check(name, stored)
    assert wal.acknowledged_gaps(SYSTEM) == [known]
    assert wal.acknowledged_gaps(SYSTEM + 1) == []
