"""WAL that was acknowledged from a spool comes into the repository, whatever interrupts that."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from backstay.core.events import Event, Warned, ignore
from backstay.errors import StorageUnavailable, WalConflict
from backstay.operations.wal.spooling import Spooling, replay
from backstay.operations.wal.storing import Piece
from backstay.repository.repository import Repository
from backstay.repository.wal.spool import WalSpool
from backstay.repository.wal.store import WalStore
from backstay.sources.postgres.lsn import segment_name
from tests.postgres.made_wal import SIZE, SYSTEM, at, commit, segment

STREAM = segment(3, [commit(1, at(1))]) + segment(4, [commit(2, at(2))]) + segment(5, [commit(3, at(3))])[:20_000]
FILES = [segment_name(1, number * SIZE, SIZE) for number in (3, 4, 5)]


@pytest.fixture
def spool(tmp_path: Path, repository: Repository) -> Iterator[WalSpool]:
    with WalSpool(tmp_path / "a" / "spool", repository.keyring) as spool:
        yield spool


@pytest.fixture
def spooling(spool: WalSpool) -> Spooling:
    """After two segments and a part of a third have come, in pieces that fit nothing."""
    spooling = Spooling(spool, SYSTEM, ignore)
    spooling.restart_at(1, 3 * SIZE, SIZE)
    for start in range(0, len(STREAM), 300_001):
        spooling.add(3 * SIZE + start, STREAM[start : start + 300_001])
        spooling.commit()
        assert spooling.durable == min(3 * SIZE + start + 300_001, 3 * SIZE + len(STREAM))
    return spooling


def stored(repository: Repository) -> bytes:
    files = repository.wal.files(SYSTEM)
    return b"".join(repository.wal.read(SYSTEM, file, found) for file, found in files.items())


def test_what_was_acknowledged_is_stored_by_the_next_receiver(
    repository: Repository, spool: WalSpool, spooling: Spooling
) -> None:
    assert replay(repository, spool) == 3
    assert stored(repository) == STREAM
    assert [found.whole for found in repository.wal.files(SYSTEM).values()] == [True, True, False]
    assert (spool.left(), replay(repository, spool)) == ([], 0)


def test_what_is_stored_already_is_not_stored_again(
    repository: Repository, spool: WalSpool, spooling: Spooling
) -> None:
    repository.wal.store(SYSTEM, FILES[0], STREAM[:SIZE])
    repository.wal.store_part(SYSTEM, FILES[2], 0, STREAM[2 * SIZE :])
    before = set(repository.wal.objects())
    assert replay(repository, spool) == 1
    assert len(set(repository.wal.objects()) - before) == 1
    assert stored(repository) == STREAM


@pytest.mark.parametrize("is_whole", [True, False])
def test_what_another_server_stored_does_not_replace_what_was_acknowledged(
    repository: Repository, spool: WalSpool, spooling: Spooling, is_whole: bool
) -> None:
    other = segment(3, [commit(9, at(1))])
    if is_whole:
        repository.wal.store(SYSTEM, FILES[0], other)
    else:
        repository.wal.store_part(SYSTEM, FILES[0], 0, other[:1000])
    with pytest.raises(WalConflict, match="other bytes"):
        replay(repository, spool)
    assert len(spool.left()) == 3


@pytest.mark.parametrize(("at", "damage"), [(54, b"?"), (0, bytes(4)), (0, b"\x7f"), (3, b"?")])
def test_damage_within_a_journal_is_told_and_put_aside(
    repository: Repository, spool: WalSpool, spooling: Spooling, at: int, damage: bytes
) -> None:
    """In a record, and in the length before it."""
    journal = spool.left()[0]
    data = bytearray(journal.read_bytes())
    second = 4 + int.from_bytes(data[:4], "big")
    assert data[second + at : second + at + len(damage)] != damage
    data[second + at : second + at + len(damage)] = damage
    journal.write_bytes(data)
    events: list[Event] = []
    assert replay(repository, spool, events=events.append) == 3
    assert stored(repository)[:300_001] == STREAM[:300_001]
    assert repository.wal.files(SYSTEM)[FILES[0]].reach == 300_001
    assert ["behind its first 300001 bytes" in str(event) for event in events] == [True, False]
    assert [path.suffix for path in journal.parent.iterdir()] == [".damaged"]
    assert replay(repository, spool) == 0


@pytest.mark.crash
@pytest.mark.parametrize("stores", range(3))
def test_a_replay_that_is_interrupted_is_done_again(
    repository: Repository, spool: WalSpool, spooling: Spooling, monkeypatch: pytest.MonkeyPatch, stores: int
) -> None:
    store, left = WalStore._store, [None] * stores

    def failing(wal: WalStore, record: object, **how: object) -> bool:
        if not left:
            raise StorageUnavailable("the store is away", cause="a test")
        left.pop()
        return store(wal, record, **how)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(WalStore, "_store", failing)
        with pytest.raises(StorageUnavailable):
            replay(repository, spool)
    assert len(spool.left()) == 3
    replay(repository, spool)
    assert stored(repository) == STREAM


def test_a_segment_leaves_the_spool_when_it_is_stored_whole(spool: WalSpool, spooling: Spooling) -> None:
    spooling.stored(Piece(FILES[0], 0, STREAM[:10], False, 3 * SIZE + 10))
    assert len(spool.left()) == 3
    spooling.stored(Piece(FILES[0], 0, STREAM[:SIZE], True, 4 * SIZE))
    assert [journal.name[:24] for journal in spool.left()] == FILES[1:]
    spooling.finish()
    assert spool.left() == []


def test_no_room_ahead_does_not_stop_who_receives(
    tmp_path: Path, spool: WalSpool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk takes the journal that is begun, and a part of the next one."""
    events: list[Event] = []
    spooling, write, left = Spooling(spool, SYSTEM, events.append), os.write, [2 * SIZE]

    def scarce(descriptor: int, data: memoryview) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, data[: left[0]])
        left[0] -= written
        return written

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", scarce)
        spooling.restart_at(1, 3 * SIZE, SIZE)
    assert [event for event in events if isinstance(event, Warned) and "no room yet" in event.message]
    assert [path.suffix for path in (tmp_path / "a" / "spool").iterdir()] == [".journal"]
    spooling.add(3 * SIZE, STREAM[:100_000])
    spooling.commit()
    assert spooling.durable == 3 * SIZE + 100_000


@pytest.mark.crash
def test_nothing_is_acknowledged_that_could_not_be_made_durable(
    spool: WalSpool, spooling: Spooling, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = spooling.durable
    spooling.add(3 * SIZE + len(STREAM), bytes(1000))

    def failing(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", failing)
        with pytest.raises(StorageUnavailable):
            spooling.commit()
    assert spooling.durable == before
