"""The WAL that a base backup fetches: all of it is received, and what is stored already must be the same."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import cast

import pytest

from backstay.core.clock import Clock
from backstay.errors import WalConflict
from backstay.operations.clusters import backup_wal
from backstay.operations.clusters.backup_wal import WalFetch
from backstay.operations.clusters.standby_content import checkpoint_time, stored_content_time
from backstay.repository.repository import Repository
from backstay.sources.postgres.base_backup import Position
from backstay.sources.postgres.connection import Connection
from backstay.sources.postgres.lsn import segment_name
from backstay.sources.postgres.receiver import Data, Message
from tests.postgres.made_wal import SIZE, SYSTEM, at, commit, segment

LOG = segment(3, [commit(1, at(1))]) + segment(4, [commit(2, at(2))]) + segment(5, [commit(3, at(3))])
FILES = [segment_name(1, number * SIZE, SIZE) for number in (3, 4, 5)]
START, STOP = Position(3 * SIZE + 100, 1), Position(5 * SIZE + 200, 1)
LAST = 2 * SIZE + 1000  # what the server has sent of its log


class Server:
    """A stream of `LOG`, which ends within its last segment."""

    place = "a server"

    def __init__(self, _url: str, _clock: Clock) -> None:
        self.at = 0

    def create_slot(self, _name: str, *, temporary: bool) -> None:
        assert temporary

    def start(self, _slot: str, timeline: int, lsn: int) -> None:
        assert (timeline, lsn) == (1, 3 * SIZE)

    def next(self, _seconds: float) -> Message:
        sent = LOG[self.at : min(self.at + 300_001, LAST)]
        self.at += len(sent)
        return Data(3 * SIZE + self.at - len(sent), sent) if sent else None

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(autouse=True)
def stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_wal, "WalStream", Server)
    monkeypatch.setattr(backup_wal, "SWITCH_S", 0.0)


def fetch(repository: Repository) -> None:
    with WalFetch(repository, "postgresql://", SYSTEM, SIZE) as wal:
        wal.fetch(START, STOP)


def test_all_between_start_and_stop_is_stored(repository: Repository) -> None:
    fetch(repository)
    files = repository.wal.files(SYSTEM)
    assert {file: stored.reach for file, stored in files.items()} == dict(zip(FILES, (None, None, 1000), strict=True))
    read = [repository.wal.read(SYSTEM, file, stored) for file, stored in files.items()]
    assert b"".join(read) == LOG[:LAST]


def test_what_a_receiver_stored_is_not_stored_again(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_wal, "SWITCH_S", 3600.0)  # what is there already is not waited for
    for number, file in enumerate(FILES[:2]):
        repository.wal.store(SYSTEM, file, LOG[number * SIZE : (number + 1) * SIZE])
    repository.wal.store_part(SYSTEM, FILES[2], 0, LOG[2 * SIZE : 2 * SIZE + 1500])
    before = repository.wal.objects()
    fetch(repository)
    assert repository.wal.objects() == before


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("is_whole", [True, False])
def test_the_log_of_a_copy_of_the_server_is_not_taken_for_its_own(
    repository: Repository, number: int, is_whole: bool
) -> None:
    other = segment(3 + number, [commit(77, at(9))])
    if is_whole:
        repository.wal.store(SYSTEM, FILES[number], other)
    else:
        repository.wal.store_part(SYSTEM, FILES[number], 0, other[:500])
    with pytest.raises(WalConflict, match="other bytes"):
        fetch(repository)
    assert repository.wal.find(SYSTEM, FILES[number]).whole == is_whole


def test_the_moment_of_a_standbys_backup_is_its_last_commit_before_the_end(repository: Repository) -> None:
    def told(stop: int) -> datetime | None:
        return stored_content_time(repository.wal, SYSTEM, SIZE, START, Position(stop, 1))

    first, second = commit(1, at(1)), commit(2, at(2))
    for number, records in ((3, [first, second]), (4, []), (5, [commit(3, at(3))])):
        repository.wal.store(SYSTEM, segment_name(1, number * SIZE, SIZE), segment(number, records))
    assert told(6 * SIZE) == at(3)
    assert told(5 * SIZE) == at(2)
    assert told(3 * SIZE + 40 + len(first)) == at(1)
    assert told(3 * SIZE + 40 + len(first) - 8) is None


def test_without_a_commit_the_checkpoint_tells_it_if_it_is_still_the_one() -> None:
    class Plain:
        def query(self, _sql: str) -> list[list[str | None]]:
            return [["0/300064", "1772323200"]]

    plain = cast("Connection", Plain())
    assert checkpoint_time(plain, START) == at(0) + timedelta(seconds=1)
    assert checkpoint_time(plain, Position(START.lsn - 8, 1)) is None
