"""WAL received into the repository: nothing is lost, and what is lost is told."""

from __future__ import annotations

import re
import signal
import threading
import time

import pytest

from backstay.errors import IdentityMismatch, SlotInUse, SourceUnreachable, StorageUnavailable, WalConflict
from backstay.operations.clusters.receive import slot_name
from backstay.operations.wal.coverage import WalCoverage
from backstay.repository.wal.store import WalStore
from backstay.sources.postgres.wal_records import Commit, events
from tests.ports import free_port
from tests.postgres.conftest import StartServer
from tests.postgres.receivers import (
    Archive,
    ThreadedReceiver,
    add_base,
    position,
    stored_end,
    system_of,
    until,
    until_stored,
)
from tests.postgres.servers import Server

FILL = "create table if not exists t(i int, v text); insert into t select i, md5(i::text) from generate_series(1, {}) i"
SLOT = f"select active from pg_replication_slots where slot_name = '{slot_name('main')}'"


def compare_with_server(archive: Archive, server: Server) -> int:
    """Every stored byte is the server's; the number of segments that are stored whole."""
    system, whole = system_of(server), 0
    with archive.open() as repository:
        files = repository.wal.files(system)
        for file, stored in files.items():
            path = server.data / "pg_wal" / file
            data = repository.wal.read(system, file, stored)
            assert path.read_bytes()[: len(data)] == data, file
            whole += stored.whole
            assert not (stored.whole and stored.parts)
    return whole


def test_kills_under_load_leave_no_hole(start_server: StartServer, archive: Archive) -> None:
    server = start_server(wal_keep_size="4GB", max_wal_size="4GB")
    receiver = archive.receiver(server, "--every", "1s")
    until(lambda: server.sql(SLOT) == "t", "the receiver streams")
    first = position(server)
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            server.sql(FILL.format(20_000))

    writer = threading.Thread(target=load)
    writer.start()
    try:
        for _ in range(4):
            time.sleep(0.9)
            receiver.kill()
            receiver.wait(10)
            receiver = archive.receiver(server, "--every", "1s")
        until(lambda: position(server) > first + (4 << 24), "four segments are full, however slow the load is")
    finally:
        stop.set()
        writer.join()
    until_stored(archive, server, 60)
    receiver.send_signal(signal.SIGTERM)
    assert receiver.wait(60) == 0, archive.log()
    assert compare_with_server(archive, server) >= 3
    with archive.open() as repository:
        coverage = WalCoverage.load(repository.wal, system_of(server))
        runs = coverage.runs(coverage.path(1))
        assert len(runs) == 1
        assert runs[0].begin <= first
        told = [event for event in coverage.events(coverage.path(1), runs[0], 0) if isinstance(event, Commit)]
        assert len(told) >= 2
    assert "stopped: WAL of main is stored up to" in archive.log()
    assert "WalGap" not in archive.log()


@pytest.mark.parametrize("version", [16, 18])
def test_a_receiver_that_is_stopped_has_stored_all_that_came(
    start_server: StartServer, archive: Archive, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backstay.operations.clusters.receive.STATUS_S", 0.2)  # it tells often how far it is
    server = start_server(version=version)
    with ThreadedReceiver(archive, server, every=600) as receiver:
        until(lambda: server.sql(SLOT) == "t", "the receiver streams")
        server.sql(FILL.format(1000))
        end = position(server)
        until_taken(server, end)
    assert receiver.result is not None
    assert receiver.result.durable >= end
    assert stored_end(archive, system_of(server)) >= end
    kept = server.sql("select restart_lsn from pg_replication_slots")
    assert int(kept.split("/")[1], 16) >= end
    with ThreadedReceiver(archive, server):
        server.sql(FILL.format(1000))
        until_stored(archive, server)
    compare_with_server(archive, server)


def test_parts_are_forgotten_when_their_segment_is_whole(server: Server, archive: Archive) -> None:
    system = system_of(server)
    with ThreadedReceiver(archive, server, every=0.05) as receiver:
        until(lambda: server.sql(SLOT) == "t", "the receiver streams")
        for _ in range(3):
            server.sql(FILL.format(100))
            until_stored(archive, server)
        with archive.open() as repository:
            assert any(len(stored.parts) > 1 for stored in repository.wal.files(system).values())
        server.sql("select pg_switch_wal()")
        server.sql(FILL.format(100))
        until_stored(archive, server)
    with archive.open() as repository:
        files = repository.wal.files(system)
        first = next(iter(files.values()))
        assert (first.whole, first.parts) == (True, [])
    assert receiver.warnings == []


def test_wal_that_the_server_removed_is_told_and_left_out(start_server: StartServer, archive: Archive) -> None:
    server = start_server(
        max_slot_wal_keep_size="16MB",
        min_wal_size="32MB",
        max_wal_size="32MB",
        wal_keep_size=0,
        summarize_wal="off",  # summaries keep WAL until it was read for them
    )
    with ThreadedReceiver(archive, server):
        server.sql(FILL.format(1000))
        until_stored(archive, server)
        add_base(archive, server)
        until_stored(archive, server)
    lost = f"select wal_status from pg_replication_slots where slot_name = '{slot_name('main')}'"
    for _ in range(20):
        server.sql("select pg_logical_emit_message(true, 'x', repeat('x', 1000000)); select pg_switch_wal()")
        server.sql("checkpoint")
        if server.sql(lost) == "lost":
            break
    assert server.sql(lost) == "lost"
    with ThreadedReceiver(archive, server, base_backup=False) as receiver:
        server.sql(FILL.format(1000))
        until_stored(archive, server)
        add_base(archive, server)
        until_stored(archive, server)
    assert [word.partition(":")[0] for word in receiver.warnings] == ["SlotLost", "WalGap"]
    assert all("base backup" in word for word in receiver.warnings)
    first, second = archive.json("pg", "windows", "--name", "main")
    assert len(first["gaps"]) == 1
    assert first["gaps"][0]["segments"] >= 1
    assert first["gaps"][0]["from_lsn"] == first["end_lsn"]
    assert second["gaps"] == []
    status = archive.json("pg", "status", "--name", "main", server.url, status=1)
    assert status["problems"] == ["no receiver runs"]  # a base backup lies behind the gap


def test_a_new_timeline_is_followed(server: Server, archive: Archive) -> None:
    standby = Server(server.place, name="standby")
    with ThreadedReceiver(archive, server):
        server.sql(FILL.format(1000))
        add_base(archive, server)
        until_stored(archive, server)
        where = ("-h", "127.0.0.1", "-p", server.port, "-U", "postgres")
        server.tool("pg_basebackup", *where, "-D", standby.data, "-R", "-c", "fast")
    standby.configure("postgresql.auto.conf", port=standby.port)
    try:
        standby.start()
        until(lambda: standby.sql("select count(*) from pg_stat_wal_receiver") == "1", "the standby streams")
        with ThreadedReceiver(archive, standby) as receiver:
            server.sql(FILL.format(1000))
            until(
                lambda: (
                    server.sql("select pg_current_wal_flush_lsn()") == standby.sql("select pg_last_wal_replay_lsn()")
                ),
                "replay",
            )
            server.stop("fast")
            standby.sql("select pg_promote()")
            standby.wait_until_promoted()
            standby.sql(FILL.format(1000))
            until_stored(archive, standby)
        assert not [word for word in receiver.warnings if "WalGap" in word]
        with ThreadedReceiver(archive, standby) as receiver:
            standby.sql(FILL.format(1000))
            until_stored(archive, standby)
    finally:
        standby.stop()
    system = system_of_files(archive)
    with archive.open() as repository:
        assert "00000002.history" in repository.wal.files(system)
        coverage = WalCoverage.load(repository.wal, system)
        path = coverage.path(2)
        assert [stretch.timeline for stretch in path.stretches] == [1, 2]
        assert len(coverage.runs(path)) == 1
    found = archive.json("pg", "windows")
    assert [window["timeline"] for window in found] == [1, 2]
    assert all(window["gaps"] == [] for window in found)
    assert found[1]["end_time"] > found[0]["end_time"]


def until_taken(server: Server, end: int) -> None:
    """Until the receiver says that it has all up to there, be it stored or not."""
    taken = f"select bool_and(write_lsn >= '{end >> 32:X}/{end & 0xFFFFFFFF:X}') from pg_stat_replication"
    until(lambda: server.sql(taken) == "t", f"WAL up to {end:X} taken")


def system_of_files(archive: Archive) -> int:
    with archive.open() as repository:
        (system,) = repository.wal.systems()
        return system


def test_a_restart_of_the_server_is_survived(server: Server, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backstay.operations.clusters.receive.STATUS_S", 0.2)  # it tells often how far it is
    with ThreadedReceiver(archive, server, every=600) as receiver:
        until(lambda: server.sql(SLOT) == "t", "the receiver streams")
        server.sql(FILL.format(1000))
        began = time.monotonic()
        server.stop("fast")  # waits until the receiver has all
        assert time.monotonic() - began < 45  # it would wait for a minute
        time.sleep(1.2)
        server.start()
        server.sql(FILL.format(1000))
        server.stop("immediate")
        server.start()
        until(lambda: server.sql(SLOT) == "t", "the receiver streams again")
        server.sql(FILL.format(1000))
        until_taken(server, position(server))
        receiver.stop()
        assert stored_end(archive, system_of(server)) >= position(server) - 8192
    assert sum("tried again" in word for word in receiver.warnings) <= 2
    assert receiver.warnings.count("WAL comes in again") >= 1
    compare_with_server(archive, server)


def test_a_name_belongs_to_one_cluster(start_server: StartServer, archive: Archive) -> None:
    one, other = start_server("one"), start_server("other")
    with ThreadedReceiver(archive, one):
        until(lambda: one.sql(SLOT) == "t", "the receiver streams")
    with pytest.raises(IdentityMismatch, match="another database cluster"), ThreadedReceiver(archive, other) as wrong:
        until(lambda: wrong.failure, "it ends")
    done = archive.run("pg", "receive", other.url, "--name", "main", status=1)
    assert str(system_of(one)) in done.stderr
    assert "--name" in done.stderr
    assert other.sql("select count(*) from pg_replication_slots") == "0"
    add_base(archive, one, name="by-base")
    done = archive.run("pg", "receive", other.url, "--name", "by-base", status=1)
    assert "IdentityMismatch" not in done.stderr
    assert "another database cluster" in done.stderr


def test_a_second_receiver_of_a_name_is_refused(
    server: Server, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backstay.operations.clusters.receive.IN_USE_S", 0.5)
    with ThreadedReceiver(archive, server):
        until(lambda: server.sql(SLOT) == "t", "the receiver streams")
        with pytest.raises(SlotInUse, match="another receiver of main"), ThreadedReceiver(archive, server) as second:
            until(lambda: second.failure, "the second one ends")


def test_quiet_times_get_a_commit_from_a_role_that_may_only_replicate(server: Server, archive: Archive) -> None:
    system = system_of(server)
    server.sql("create role backup login replication")
    url = server.url.replace("postgres@", "backup@")
    with ThreadedReceiver(archive, server, url=url, heartbeat=0.5):
        until(lambda: server.sql(SLOT) == "t", "the receiver streams")
        before = position(server)
        server.sql("checkpoint")

        def beats() -> int:
            with archive.open() as repository:
                found = repository.wal.files(system).items()
                data = [repository.wal.read(system, file, stored) for file, stored in found]
            return sum(isinstance(event, Commit) and event.lsn >= before for part in data for event in events(part))

        until(lambda: beats() >= 2, "two commits")
        assert archive.json("pg", "status", "--name", "main", url, status=1)["server"]["slot"]["active"] is True
    with archive.open() as repository:
        files = repository.wal.files(system)
        assert any(b"heartbeat" in repository.wal.read(system, file, stored) for file, stored in files.items())


def test_a_store_that_is_away_loses_nothing(
    start_server: StartServer, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start_server(wal_sender_timeout="4s")
    away = threading.Event()
    store, store_part = WalStore.store, WalStore.store_part

    def refusing(work: object) -> object:
        def inner(*arguments: object, **how: object) -> bool:
            if away.is_set():
                raise StorageUnavailable("the store is away", cause="a test")
            return bool(work(*arguments, **how))  # type: ignore[operator]

        return inner

    monkeypatch.setattr(WalStore, "store", refusing(store))
    monkeypatch.setattr(WalStore, "store_part", refusing(store_part))
    with ThreadedReceiver(archive, server) as receiver:
        until(lambda: server.sql(SLOT) == "t", "the receiver streams")
        server.sql(FILL.format(100))
        until_stored(archive, server)
        away.set()
        durable = stored_end(archive, system_of(server))
        for _ in range(7):
            server.sql("select pg_logical_emit_message(true, 'x', repeat('x', 2000000)); select pg_switch_wal()")
        sender = "select pid from pg_stat_replication"
        before = server.sql(sender)
        time.sleep(5)
        assert server.sql(sender) == before != ""  # the server hears from the receiver all the time
        kept = server.sql("select restart_lsn from pg_replication_slots").split("/")[1]
        assert int(kept, 16) <= durable  # nothing is acknowledged that is not durable
        sent = server.sql("select sent_lsn from pg_stat_replication").split("/")[1]
        assert int(sent, 16) < position(server)  # and the receiver does not take all of it into memory
        away.clear()
        until_stored(archive, server)
    assert len(receiver.warnings) == 2
    assert "tried again" in receiver.warnings[0]
    compare_with_server(archive, server)


def test_other_bytes_under_a_stored_name_end_the_receiver(server: Server, archive: Archive) -> None:
    system = system_of(server)
    with ThreadedReceiver(archive, server):
        server.sql(FILL.format(100))
        until_stored(archive, server)
    with archive.open() as repository:
        file, stored = next(iter(repository.wal.files(system).items()))
        data = bytearray(repository.wal.read(system, file, stored))
        data[-100] ^= 1
        repository.wal.remove(system, file, stored)
        repository.wal.store_part(system, file, 0, bytes(data))
    with pytest.raises(WalConflict, match=file), ThreadedReceiver(archive, server) as receiver:
        until(lambda: receiver.failure, "it ends")


def test_a_server_that_is_not_there_is_told_at_once(archive: Archive) -> None:
    done = archive.run("pg", "receive", f"postgresql://nobody@127.0.0.1:{free_port()}/x", "--name", "main", status=15)
    assert done.stderr.startswith("error: cannot connect")
    assert SourceUnreachable.default_hint in done.stderr
    done = archive.run("pg", "receive", "postgresql:///", "--name", "main", "--every", "0", status=2)
    assert "--every" in done.stderr


def test_slots_have_names_that_servers_take() -> None:
    names = {slot_name(name) for name in ("main", "Main", "ma-in", "ma_in", "ä", "x" * 200)}
    assert len(names) == 6
    assert all(re.fullmatch(r"backstay_[a-z0-9_]{1,54}", name) for name in names)
