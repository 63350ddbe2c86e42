"""The independent reader and repositories with WAL."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.repository.format import wal_gap_name, wal_name
from backstay.repository.repository import Repository
from backstay.repository.wal.slices import end_name, slice_name
from backstay.repository.wal.store import GapRecord
from backstay.storage.local import LocalStorage
from backstay.storage.retention import must_stay
from backstay.trust.secrets import Secret
from tests.operations.copies import SMALL_PACKS, back_up, make_source
from tools import dumb_verifier

SYSTEM = 0x6B0B_3806_62E4_DC64
FIRST, SECOND = f"{1:024X}", f"{2:024X}"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A repository with a snapshot and with every kind of object that WAL has."""
    secret = Secret.new_keyfile()
    (tmp_path / "key").write_text(secret.printed())
    with Repository.create(LocalStorage(tmp_path / "repository"), secret, environment=SMALL_PACKS) as repository:
        back_up(repository, make_source(tmp_path / "source", files=2))
        repository.wal.bind("main", SYSTEM, repository.clock)
        repository.wal.store(SYSTEM, FIRST, bytes(range(256)) * 64)
        repository.wal.store(SYSTEM, f"{FIRST}.00000028.backup", b"START WAL LOCATION: 0/28\n")
        repository.wal.store(SYSTEM, "00000002.history", b"1\t0/3000148\tno recovery target specified\n")
        for file in (slice_name("binlog.000007", 0), end_name("binlog.000007")):
            repository.wal.store(SYSTEM, file, b"16")
        repository.wal.store_part(SYSTEM, slice_name("binlog.000008", 0), 0, b"part")
        repository.wal.store_part(SYSTEM, SECOND, 0, b"first")
        repository.wal.store_part(SYSTEM, SECOND, 5, b"second")
        repository.wal.acknowledge_gap(GapRecord(SYSTEM, 3 << 24, 4 << 24, 1, "somebody", "a disk was full"))
    return tmp_path


def verdict(place: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = dumb_verifier.main([str(place / "repository"), "--key-file", str(place / "key")])
    return status, capsys.readouterr().out


def test_it_reads_them(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = verdict(place, capsys)
    assert status == 0, told


def test_it_finds_what_lies_under_another_name(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = LocalStorage(place / "repository")
    (binding,) = (info.name for info in store.list("wal/names/"))
    moved = {
        wal_name(SYSTEM + 1, FIRST): wal_name(SYSTEM, FIRST),
        wal_name(SYSTEM, SECOND, (0, 6)): wal_name(SYSTEM, SECOND, (0, 5)),
        f"wal/names/{'0' * 32}": binding,
        wal_gap_name(SYSTEM, 3 << 24, 5 << 24): wal_gap_name(SYSTEM, 3 << 24, 4 << 24),
        "wal/stray": wal_name(SYSTEM, FIRST),
    }
    for name, origin in moved.items():
        store.store(name, store.retrieve(origin))
    status, told = verdict(place, capsys)
    assert status != 0
    assert {line.partition(":")[0] for line in told.splitlines() if line.startswith("wal/")} == set(moved)


def test_it_finds_damage(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = LocalStorage(place / "repository")
    names = [info.name for info in store.list("wal/")]
    for name in names:
        data = bytearray(store.retrieve(name))
        data[-1] ^= 1
        store.store(name, bytes(data), overwrite=True)
    status, told = verdict(place, capsys)
    assert status != 0
    assert {line.partition(":")[0] for line in told.splitlines() if line.startswith("wal/")} == set(names)


def test_stores_lock_whole_segments_and_no_parts() -> None:
    assert must_stay(wal_name(SYSTEM, FIRST))
    assert must_stay("wal/names/00")
    assert must_stay(wal_gap_name(SYSTEM, 0, 1))
    assert not must_stay(wal_name(SYSTEM, FIRST, (0, 10)))
