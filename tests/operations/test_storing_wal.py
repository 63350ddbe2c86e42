"""What commits wait for: which bytes become durable together, and that nothing else is done in between."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from backstay.core.events import Event, ignore
from backstay.errors import SourceRefused, WalConflict
from backstay.operations.wal.spooling import Spooling
from backstay.operations.wal.storing import Assembler, Storing, forget_superseded
from backstay.operations.wal.streaming import FEW, Streaming
from backstay.repository.repository import Repository
from backstay.repository.wal.spool import WalSpool
from backstay.sources.postgres.lsn import segment_name
from backstay.sources.postgres.receiver import Data, Message
from backstay.storage.memory import MemoryStorage
from tests.operations.copies import SECRET
from tests.postgres.made_wal import SIZE, SYSTEM, segment
from tests.postgres.receivers import until

SEGMENT = segment(3)


class Store(MemoryStorage):
    """Deletes many at once, and remembers how many."""

    deletes_at_once = 64

    def __init__(self) -> None:
        super().__init__()
        self.deleted: list[int] = []

    def delete_all(self, names: Sequence[str]) -> None:
        self.deleted.append(len(names))
        super().delete_all(names)


def test_parts_of_a_whole_segment_are_forgotten_together() -> None:
    store = Store()
    with Repository.create(store, SECRET) as repository:
        storing = Storing(repository, SYSTEM, ignore, parts={}, noticed=lambda _piece: None)
        assembler = Assembler(1, 3 * SIZE, SIZE)
        for at in range(0, SIZE, SIZE // 8):
            for piece in assembler.add(3 * SIZE + at, SEGMENT[at : at + SIZE // 8]):
                storing.offer(piece)
            if (part := assembler.cut()) is not None:
                storing.offer(part)
            until(lambda: storing.is_idle, "all is stored")
        until(lambda: store.deleted, "parts are forgotten")
        storing.close()
        assert store.deleted == [7]
        (found,) = repository.wal.files(SYSTEM).values()
        assert (found.whole, found.parts) == (True, [])


def watch(storing: Storing) -> None:
    """As a receiver does, which ends with what cannot be mended."""
    for _ in range(600):
        storing.check()
        storing.wait(0.05)


def test_a_segment_that_another_server_wrote_does_not_replace_parts() -> None:
    with Repository.create(MemoryStorage(), SECRET) as repository:
        storing = Storing(repository, SYSTEM, ignore, parts={}, noticed=lambda _piece: None)
        assembler = Assembler(1, 3 * SIZE, SIZE)
        list(assembler.add(3 * SIZE, SEGMENT[:100]))
        part = assembler.cut()
        assert part is not None
        storing.offer(part)
        until(lambda: storing.is_idle, "a part is stored")
        repository.wal.store_part(SYSTEM, part.file, 0, SEGMENT[:100] + b"of another server")
        for piece in assembler.add(3 * SIZE + 100, SEGMENT[100:]):
            storing.offer(piece)
        with pytest.raises(WalConflict, match="other bytes"):
            watch(storing)
        storing.close()
        assert not repository.wal.files(SYSTEM)[part.file].whole


def test_only_parts_that_are_equal_are_forgotten_at_the_next_start() -> None:
    store, told = Store(), list[Event]()
    with Repository.create(store, SECRET) as repository:
        wal, file = repository.wal, segment_name(1, 3 * SIZE, SIZE)
        wal.store_part(SYSTEM, file, 0, SEGMENT[:100])
        wal.store_part(SYSTEM, file, 100, b"of another server")
        wal.store(SYSTEM, file, SEGMENT, parts=())  # both came at the same moment
        assert forget_superseded(repository, SYSTEM, told.append) == {}
        assert wal.files(SYSTEM)[file].parts == [(100, 117)]
    (warned,) = told
    assert "other bytes than 1 part of it, which stay" in str(warned)


class Stream:
    """Messages that have come, and how long each was waited for."""

    def __init__(self, *messages: Data) -> None:
        self.messages, self.patience = list(messages), list[float | None]()
        self.reported = 0

    def next(self, seconds: float | None, _bell: object) -> Message:
        self.patience.append(seconds)
        return self.messages.pop(0) if self.messages else None

    def report(self, written: int, durable: int) -> None:
        assert written >= durable
        self.reported = durable

    def stop(self) -> None:
        """Nothing follows."""


@pytest.mark.parametrize(("length", "looks"), [(100, [None]), (FEW, [0.0])])
def test_commits_wait_for_nothing_that_may_still_come(length: int, looks: list[float | None], tmp_path: Path) -> None:
    """After a few bytes only what came together with them is taken; who catches up takes all there is."""
    stream = Stream(Data(3 * SIZE, SEGMENT[:length]))
    with (
        Repository.create(MemoryStorage(), SECRET) as repository,
        WalSpool(tmp_path / "s", repository.keyring) as spool,
    ):
        storing = Storing(repository, SYSTEM, ignore, parts={}, noticed=lambda _piece: None)
        spooling = Spooling(spool, SYSTEM, ignore)
        spooling.restart_at(1, 3 * SIZE, SIZE)
        streaming = Streaming(
            stream=stream,  # type: ignore[arg-type]
            assembler=Assembler(1, 3 * SIZE, SIZE),
            storing=storing,
            every=3600,
            report_every=3600,
            clock=repository.clock,
            stopped=lambda: stream.reported > 0,
            events=ignore,
            not_before=0,
            is_synchronous=True,
            spooling=spooling,
        )
        assert streaming.run() is None
        storing.close()
    assert stream.patience[1:2] == looks
    assert stream.reported == 3 * SIZE + length


def test_small_frames_fit_into_the_room_of_a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that grows has to have its length recorded at each commit."""
    monkeypatch.setattr(os, "fdatasync", lambda _descriptor: None)  # sixteen hundred would take seconds
    with (
        Repository.create(MemoryStorage(), SECRET) as repository,
        WalSpool(tmp_path / "s", repository.keyring) as spool,
    ):
        spooling = Spooling(spool, SYSTEM, ignore)
        spooling.restart_at(1, 3 * SIZE, SIZE)
        (journal,) = spool.left()
        room = journal.stat().st_size
        for at in range(0, SIZE, 640):
            spooling.add(3 * SIZE + at, SEGMENT[at : at + 640])
            spooling.commit()
        assert journal.stat().st_size == room
        found = spool.read(journal)
        assert found is not None
        assert found.data == SEGMENT


def test_the_next_journal_has_its_room_before_its_segment_begins(tmp_path: Path) -> None:
    with (
        Repository.create(MemoryStorage(), SECRET) as repository,
        WalSpool(tmp_path / "s", repository.keyring) as spool,
    ):
        spooling = Spooling(spool, SYSTEM, ignore)
        for _ in range(2):  # a stream that begins anew makes no more
            spooling.restart_at(1, 3 * SIZE, SIZE)
        (prepared,) = (path.stat() for path in (tmp_path / "s").glob("*.free"))
        spooling.add(3 * SIZE, SEGMENT + b"more")
        spooling.commit()
        journal = spool.left()[-1].stat()
        assert (journal.st_ino, journal.st_size) == (prepared.st_ino, prepared.st_size)
        assert journal.st_size > SIZE
        found = spool.read(spool.left()[-1])
        assert found is not None
        assert found.data == b"more"


@pytest.mark.parametrize("cut", [100, 5000, SIZE - 1])
def test_a_segment_of_which_other_bytes_are_stored_already_is_not_taken(cut: int) -> None:
    """Whatever was acknowledged of it is what a recovery will use."""
    known = SEGMENT[:5000]
    assembler = Assembler(1, 3 * SIZE, SIZE, known)
    assert [*assembler.add(3 * SIZE, SEGMENT[:cut])] == []
    other = Assembler(1, 3 * SIZE, SIZE, known[:-1] + bytes([known[-1] ^ 1]))
    with pytest.raises(WalConflict, match="stored with other bytes"):
        [*other.add(3 * SIZE, SEGMENT[:cut]), *other.add(3 * SIZE + cut, SEGMENT[cut:])]


@pytest.mark.parametrize("off", [-1, 1, -SIZE, SIZE])
def test_log_that_does_not_follow_what_came_before_is_not_taken(off: int) -> None:
    assembler = Assembler(1, 3 * SIZE, SIZE)
    assert [*assembler.add(3 * SIZE, SEGMENT[:100])] == []
    with pytest.raises(SourceRefused, match="other WAL than was expected"):
        [*assembler.add(3 * SIZE + 100 + off, SEGMENT[100:200])]
    assert [*assembler.add(3 * SIZE + 100, SEGMENT[100:200])] == []
