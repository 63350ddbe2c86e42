"""WAL in a spool: what was acknowledged is read again, and nothing else."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from backstay.errors import CorruptedBackup, InsufficientSpace, SlotInUse, StorageUnavailable
from backstay.repository.format import epoch_name
from backstay.repository.repository import Repository
from backstay.repository.wal.spool import Spooled, WalSpool
from backstay.repository.wal.store import BLOCK
from backstay.testing import MemoryStorage
from tests.operations.copies import SECRET
from tests.synced import Synced

SYSTEM = 7313317639881522009
FIRST, SECOND, THIRD = (f"0000000100000000000000A{number}" for number in range(3))


@pytest.fixture
def repository() -> Iterator[Repository]:
    with Repository.create(MemoryStorage(), SECRET) as repository:
        yield repository


@pytest.fixture
def spool(tmp_path: Path, repository: Repository) -> Iterator[WalSpool]:
    with WalSpool(tmp_path / "spool", repository.keyring) as spool:
        spool.restart(4096)
        yield spool


def fill(spool: WalSpool, file: str, *pieces: bytes) -> None:
    at = 0
    for piece in pieces:
        spool.append(SYSTEM, file, at, piece)
        spool.sync()
        at += len(piece)


def put(journal: Path, data: bytes | bytearray) -> None:
    """Write over a file in place: one that is emptied first goes to the disk each time."""
    with journal.open("r+b") as file:
        file.write(data)
        file.truncate()


def second_frame(journal: bytes | bytearray) -> int:
    """Where it begins."""
    return 4 + int.from_bytes(journal[:4])


def contents(spool: WalSpool) -> dict[str, bytes]:
    read = [spool.read(journal) for journal in spool.left()]
    return {spooled.file: spooled.data for spooled in read if spooled is not None}


def test_what_was_made_durable_is_read_again(spool: WalSpool) -> None:
    fill(spool, FIRST, b"one", b"two")
    fill(spool, SECOND, b"three")
    assert contents(spool) == {FIRST: b"onetwo", SECOND: b"three"}
    assert not any(b"onetwo" in journal.read_bytes() for journal in spool.left())


@pytest.mark.crash
def test_wherever_a_crash_tore_it_off_the_frames_before_are_read(spool: WalSpool) -> None:
    fill(spool, FIRST, b"one", b"two", b"three")
    (journal,) = spool.left()
    data = journal.read_bytes().rstrip(b"\0")
    seen = set()
    for length in range(len(data) + 1):
        for torn in (data[:length], data[:length] + bytes(len(data) - length)):
            put(journal, torn)
            seen.add(contents(spool).get(FIRST, b""))
    assert seen == {b"", b"one", b"onetwo", b"onetwothree"}


def test_whatever_is_damaged_before_the_last_frame_is_seen(spool: WalSpool) -> None:
    fill(spool, FIRST, b"one", b"two")
    (journal,) = spool.left()
    data = bytearray(journal.read_bytes())
    for bit in range(second_frame(data) * 8):
        flipped = data.copy()
        flipped[bit // 8] ^= 1 << bit % 8
        put(journal, flipped)
        assert spool.read(journal) == Spooled(0, FIRST, b"", is_damaged=True)


def test_each_block_that_is_lost_before_the_last_frame_is_seen(spool: WalSpool) -> None:
    pieces = [bytes([number]) * 1500 for number in range(11)]
    fill(spool, FIRST, *pieces)
    (journal,) = spool.left()
    whole = journal.read_bytes()
    frame = second_frame(whole)
    for start in range(0, frame * (len(pieces) - 1) - BLOCK, BLOCK):
        put(journal, whole[:start] + bytes(BLOCK) + whole[start + BLOCK :])
        before = b"".join(pieces[: start // frame])
        assert spool.read(journal) == Spooled(SYSTEM if before else 0, FIRST, before, is_damaged=True)


def test_what_is_sealed_in_an_epoch_that_cannot_be_read_waits_for_it(
    spool: WalSpool, tmp_path: Path, repository: Repository
) -> None:
    fill(spool, FIRST, b"one")
    backend, name = repository.backend, epoch_name(repository.keyring.current.number)
    record = backend.retrieve(name)
    repository.keyring.begin_epoch(repository.clock)
    backend.store(name, record[:-1] + bytes([record[-1] ^ 1]), overwrite=True)
    (journal,) = spool.left()
    with (
        Repository.open(backend, SECRET) as other,
        WalSpool(tmp_path / "other", other.keyring) as later,
        pytest.raises(CorruptedBackup),
    ):
        later.read(journal)


def test_a_rest_of_an_epoch_that_cannot_be_read_holds_nothing_up(
    spool: WalSpool, repository: Repository, tmp_path: Path
) -> None:
    fill(spool, FIRST, b"a" * 50, b"b" * 50, b"c" * 50)
    backend, name = repository.backend, epoch_name(repository.keyring.current.number)
    repository.keyring.begin_epoch(repository.clock)
    spool.restart()
    spool.forget(FIRST)
    fill(spool, SECOND, b"x" * 10)  # behind it lies what is left of the other one
    record = backend.retrieve(name)
    backend.store(name, record[:-1] + bytes([record[-1] ^ 1]), overwrite=True)
    (journal,) = spool.left()
    with Repository.open(backend, SECRET) as later, WalSpool(tmp_path / "other", later.keyring) as reader:
        found = reader.read(journal)
    assert found is not None
    assert (found.data, found.is_damaged) == (b"x" * 10, False)


def test_a_journal_that_finds_no_room_leaves_it_to_others(
    spool: WalSpool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def scarce(descriptor: int, data: memoryview) -> int:
        if len(data) <= 1000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[: len(data) - 1000])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", scarce)
        for make in (partial(spool.begin, FIRST), spool.prepare):
            with pytest.raises(InsufficientSpace, match="spool"):
                make()
            assert list((tmp_path / "spool").iterdir()) == []
    fill(spool, FIRST, b"one")
    assert contents(spool) == {FIRST: b"one"}


def test_a_journal_that_is_written_over_gives_nothing_of_the_one_before(spool: WalSpool) -> None:
    fill(spool, FIRST, b"long ago", b"and more", b"and more")
    fill(spool, SECOND, b"other")
    spool.forget(FIRST)
    fill(spool, THIRD, b"new")
    assert contents(spool) == {SECOND: b"other", THIRD: b"new"}
    assert len(list(spool.left()[0].parent.iterdir())) == 2


def test_a_receiver_that_begins_anew_begins_another_journal(spool: WalSpool) -> None:
    fill(spool, FIRST, b"one")
    spool.restart(4096)
    fill(spool, FIRST, b"one", b"two")
    assert [spooled.data for spooled in map(spool.read, spool.left()) if spooled] == [b"one", b"onetwo"]
    spool.clear()
    assert spool.left() == []


def test_one_process_has_it_at_a_time(spool: WalSpool, tmp_path: Path, repository: Repository) -> None:
    with pytest.raises(SlotInUse, match="another receiver"):
        WalSpool(tmp_path / "spool", repository.keyring)


def test_a_directory_that_cannot_be_used_is_told_with_what_to_do(tmp_path: Path, repository: Repository) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageUnavailable, match="spool") as caught:
        WalSpool(tmp_path / "file" / "spool", repository.keyring)
    assert "--spool" in caught.value.hint


@pytest.mark.crash
def test_a_journal_and_what_is_in_it_are_durable_before_anything_is_acknowledged(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = Synced(tmp_path, monkeypatch)
    with WalSpool(tmp_path / "above" / "spool", repository.keyring) as spool:
        assert synced.calls == ["fsync .", "fsync above"]
        spool.restart(4096)
        for file, used in ((FIRST, ""), (SECOND, f"rename above/spool/{FIRST}.000001.free above/spool/")):
            synced.calls.clear()
            spool.begin(file)
            journal = f"above/spool/{file}.000001.journal"
            made = used + journal.removeprefix("above/spool/") if used else f"fsync {journal}"
            assert synced.calls == [made, "fsync above/spool"]
            fill(spool, file, b"one", b"two")
            assert synced.calls[2:] == [f"fdatasync {journal}"] * 2
            assert synced.contents[journal] == (tmp_path / journal).read_bytes()
            spool.restart(4096)
            spool.forget(file)


@pytest.mark.crash
def test_room_is_durable_before_it_is_offered(spool: WalSpool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = Synced(tmp_path / "spool", monkeypatch)
    spool.prepare()
    assert synced.calls == ["fsync new", "rename new next.free"]
    assert synced.contents["new"] == bytes(4096)
