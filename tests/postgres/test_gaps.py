"""Lost slots and gaps: told, and followed by a base backup, whoever was killed meanwhile."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from backstay.core.events import EventSink
from backstay.errors import ChecksumFailure, SourceUnreachable
from backstay.operations.clusters import required_base
from backstay.operations.clusters.backup import ClusterBackupOptions, ClusterBackupResult, back_up_cluster
from backstay.operations.clusters.plan import RecoveryTarget, plan_recovery
from backstay.operations.clusters.receive import slot_name
from backstay.operations.wal.bases import base_backups
from backstay.repository.repository import Repository
from tests.postgres.conftest import StartServer
from tests.postgres.receivers import Archive, ThreadedReceiver, add_base, until, until_stored
from tests.postgres.recovering import back_up
from tests.postgres.servers import Server

STATUS = f"select wal_status from pg_replication_slots where slot_name = '{slot_name('main')}'"


@pytest.fixture
def start_small(start_server: StartServer) -> Callable[[int], Server]:
    """A server whose slots keep little, of a version."""

    def start(version: int) -> Server:
        settings: dict[str, Any] = {
            "max_slot_wal_keep_size": "2MB",
            "min_wal_size": "2MB",
            "max_wal_size": "4MB",
            "wal_keep_size": 0,
        }
        if version >= 17:
            settings["summarize_wal"] = "off"  # summaries keep WAL until it was read for them
        return start_server(version=version, segment_mib=1, **settings)

    return start


def receive_and_lose(archive: Archive, server: Server) -> None:
    """A base backup and some WAL behind it, and then more than the slot of the stopped receiver may keep."""
    with ThreadedReceiver(archive, server):
        server.sql("create table t(i int)")
        with archive.open() as repository:
            back_up(repository, server)
        until_stored(archive, server)
    for _ in range(40):
        server.sql("select pg_logical_emit_message(true, 'x', repeat('x', 500000)); select pg_switch_wal()")
        server.sql("checkpoint")
        if server.sql(STATUS) == "lost":
            return
    pytest.fail("the server did not give up the slot")


def problems(archive: Archive, *url: str, status: int) -> list[str]:
    found: list[str] = archive.json("pg", "status", "--name", "main", *url, status=status)["problems"]
    return found


def is_mended(archive: Archive) -> bool:
    """Whether a window has begun behind the gap."""
    found = archive.json("pg", "windows", "--name", "main")
    return len(found) == 2 and bool(found[0]["gaps"]) and not found[1]["gaps"] and bool(found[1]["end_time"])


@pytest.mark.parametrize("version", [16, 18])
def test_a_lost_slot_leads_to_a_base_backup(
    start_small: Callable[[int], Server], archive: Archive, version: int
) -> None:
    server = start_small(version)
    receive_and_lose(archive, server)
    assert "the server gave up WAL that its slot should have kept" in problems(archive, server.url, status=1)
    with ThreadedReceiver(archive, server) as receiver:
        until(lambda: is_mended(archive), "a base backup behind the gap")
        server.sql("insert into t values (1)")
        until_stored(archive, server)
        assert problems(archive, server.url, status=0) == []
    lost, gap, begun, made = receiver.warnings
    assert (lost[:8], gap[:6]) == ("SlotLost", "WalGap")
    assert "a base backup is made now" in gap
    assert "is being made" in begun
    assert "can be recovered" in made
    with ThreadedReceiver(archive, server) as receiver:  # nothing is made twice
        until_stored(archive, server)
    assert receiver.warnings == []


def test_a_receiver_makes_a_base_backup_on_a_timeline_that_none_leads_to(server: Server, archive: Archive) -> None:
    """A standby that is behind is promoted: the base backup that was made meanwhile lies on the timeline it left."""
    server.stop("fast")
    standby = Server(server.place, name="standby")
    shutil.copytree(server.data, standby.data, symlinks=True)
    (standby.data / "standby.signal").touch()
    standby.configure("postgresql.auto.conf", port=standby.port)
    standby.own(standby.data)
    server.start()
    add_base(archive, server)
    server.stop("fast")
    try:
        standby.start()
        with ThreadedReceiver(archive, standby) as receiver:
            until(lambda: standby.sql("select active from pg_replication_slots") == "t", "the receiver streams")
            standby.sql("select pg_promote()")
            until(lambda: len(receiver.warnings) == 2, "a base backup")
        begun, made = receiver.warnings
        assert "is being made, as none leads to timeline 2" in begun
        assert "can be recovered" in made
        with archive.open() as repository:
            (base,) = (base for base in base_backups(repository) if base.timeline == 2)
            repository.snapshots.drop(base.snapshot, "test", repository.clock)
        assert any("leads to timeline 2" in problem for problem in problems(archive, status=1))
        with ThreadedReceiver(archive, standby) as receiver:  # as if the first one was killed before it made one
            until(lambda: len(receiver.warnings) == 2, "a base backup")
    finally:
        standby.stop()
    assert problems(archive, status=0) == []
    with archive.open() as repository:
        assert plan_recovery(repository, "main", "latest", RecoveryTarget()).path.timeline == 2


def test_a_receiver_that_was_killed_before_its_base_backup_leaves_it_to_the_next(
    start_small: Callable[[int], Server], archive: Archive
) -> None:
    server = start_small(18)
    receive_and_lose(archive, server)
    receiver = archive.receiver(server, "--no-base-backup", "--every", "1s")
    until(lambda: "WalGap" in archive.log(), "the gap is told")
    server.sql("insert into t values (1)")
    until_stored(archive, server)
    receiver.kill()
    receiver.wait(10)
    (problem, *_) = problems(archive, status=1)
    assert "no base backup lies behind the gap" in problem
    receiver = archive.receiver(server, "--every", "1s")
    until(lambda: "is being made" in archive.log(), "it makes one")
    receiver.kill()
    receiver.wait(10)
    with ThreadedReceiver(archive, server):
        until(lambda: is_mended(archive), "a base backup behind the gap")
    assert problems(archive, status=0) == []


def test_a_base_backup_that_fails_is_tried_again_while_wal_comes_in(
    start_small: Callable[[int], Server], archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[ClusterBackupOptions] = []

    def failing_twice(
        repository: Repository, url: str, options: ClusterBackupOptions, *, events: EventSink
    ) -> ClusterBackupResult:
        tried.append(options)
        if len(tried) <= 2:
            raise SourceUnreachable("the server is away", cause="a test")
        return back_up_cluster(repository, url, options, events=events)

    monkeypatch.setattr(required_base, "back_up_cluster", failing_twice)
    monkeypatch.setattr(required_base, "FIRST_PAUSE_S", 0.1)
    server = start_small(18)
    receive_and_lose(archive, server)
    with ThreadedReceiver(archive, server) as receiver:
        until(lambda: is_mended(archive), "a base backup behind the gap")
        until_stored(archive, server)
    assert len(tried) == 3
    assert sum("tried again" in word for word in receiver.warnings) == 1


def test_a_server_with_damaged_pages_is_not_read_again_and_again(
    start_small: Callable[[int], Server], archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def damaged(_repository: Repository, url: str, *_: object, **__: object) -> None:
        tried.append(url)
        raise ChecksumFailure("the server has damaged pages", cause="a test")

    monkeypatch.setattr(required_base, "back_up_cluster", damaged)
    monkeypatch.setattr(required_base, "FIRST_PAUSE_S", 0.01)
    server = start_small(18)
    receive_and_lose(archive, server)
    with ThreadedReceiver(archive, server) as receiver:
        until(lambda: any("damaged pages" in word for word in receiver.warnings), "the first try")
        until_stored(archive, server)
    assert len(tried) == 1


def test_a_mistake_in_making_a_base_backup_ends_the_receiver(
    start_small: Callable[[int], Server], archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    server = start_small(18)
    receive_and_lose(archive, server)
    monkeypatch.setattr(required_base, "back_up_cluster", mistaken)
    receiver = ThreadedReceiver(archive, server)
    with pytest.raises(ZeroDivisionError), receiver:
        assert isinstance(receiver.ended(), ZeroDivisionError)


def test_behind_each_tablespace_that_is_made_a_base_backup_is_made(archive: Archive, start_server: StartServer) -> None:
    server = start_server(segment_mib=1)

    def make_space(name: str) -> None:
        space = server.place / name
        space.mkdir()
        server.own(space)
        server.sql(f"create tablespace {name} location '{space}'")

    def tablespaces() -> list[int]:
        with archive.open() as repository:
            return [len(base.tablespaces) for base in base_backups(repository)]

    with archive.open() as repository:
        back_up(repository, server)
    with ThreadedReceiver(archive, server, base_backup=False) as receiver:
        until_stored(archive, server)
        make_space("one")
        until(lambda: receiver.warnings, "it is told")
        until_stored(archive, server)
        told = problems(archive, server.url, status=1)
    (warned,) = receiver.warnings
    assert f"was made in {server.place}/one" in warned
    assert "`backstay pg backup`" in warned
    assert any(f"in {server.place}/one is not in the newest base backup" in problem for problem in told)
    with ThreadedReceiver(archive, server) as receiver:
        until(lambda: tablespaces() == [0, 1], "a base backup for the one that nobody made it for")
        make_space("two")
        until(lambda: tablespaces() == [0, 1, 2], "a base backup behind the next")
        until_stored(archive, server)
        assert problems(archive, server.url, status=0) == []
    assert sum("is being made, as tablespace" in word for word in receiver.warnings) == 2


def test_a_standby_that_has_not_come_so_far_gets_its_base_backup_later(
    start_server: StartServer, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(segment_mib=1)
    space = server.place / "space"
    space.mkdir()
    server.own(space)
    monkeypatch.setattr(required_base, "FIRST_PAUSE_S", 0.2)
    monkeypatch.setattr(required_base, "LONGEST_PAUSE_S", 0.5)
    standby = Server(server.place, name="standby")
    where = ("-h", "127.0.0.1", "-p", server.port, "-U", "postgres")
    server.tool("pg_basebackup", *where, "-D", standby.data, "-R", "-c", "fast")
    standby.configure("postgresql.auto.conf", port=standby.port)

    def bases() -> list[int]:
        """By their positions: of the moment that a standby's backup shows only the second may be known."""
        with archive.open() as repository:
            found = sorted(base_backups(repository), key=lambda base: base.stop_lsn)
            return [len(base.tablespaces) for base in found]

    try:
        standby.start()
        with archive.open() as repository:
            back_up(repository, standby)
        standby.sql("select pg_wal_replay_pause()")
        with ThreadedReceiver(archive, standby) as receiver:
            server.sql(f"create tablespace one location '{space}'")
            until(lambda: any("replayed no checkpoint" in word for word in receiver.warnings), "it is told")
            assert bases() == [0], "one that begins before it would not help"
            standby.sql("select pg_wal_replay_resume()")
            server.sql("checkpoint")
            until(
                lambda: (
                    standby.sql("select pg_last_wal_replay_lsn()") >= server.sql("select pg_current_wal_flush_lsn()")
                ),
                "replay",
            )
            standby.sql("checkpoint")
            until(lambda: bases() == [0, 1], "a base backup behind it")
        assert sum("what follows can be recovered" in word for word in receiver.warnings) == 1
    finally:
        standby.stop()
