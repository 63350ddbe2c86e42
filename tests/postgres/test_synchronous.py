"""Commits that wait for a receiver are not lost with their server, wherever they were acknowledged."""

from __future__ import annotations

import pytest

from backstay.errors import SlotInUse
from backstay.operations.clusters.receive import slot_name
from backstay.operations.wal.coverage import WalCoverage
from backstay.sources.postgres.wal_records import Commit
from tests.postgres.conftest import StartServer
from tests.postgres.receivers import Archive, ThreadedReceiver, system_of, until
from tests.postgres.servers import Server

SYNCHRONOUS = "select sync_state from pg_stat_replication"


@pytest.fixture
def server(start_server: StartServer) -> Server:
    server = start_server(segment_mib=1, wal_keep_size=0)
    server.sql("create table t(i int, v text)")
    return server


def let_commits_wait(server: Server) -> None:
    server.sql(f"alter system set synchronous_standby_names = '{slot_name('main')}'")
    server.sql("select pg_reload_conf()")
    until(lambda: server.sql(SYNCHRONOUS) == "sync", "commits wait for the receiver")


def commit(server: Server, times: int) -> None:
    """Transactions that have returned."""
    for _ in range(times):
        server.sql("insert into t select i, md5(i::text) from generate_series(1, 4000) i")


def stored_commits(archive: Archive, system: int) -> int:
    with archive.open() as repository:
        coverage = WalCoverage.load(repository.wal, system)
        path = coverage.path(1)
        found = [event for run in coverage.runs(path) for event in coverage.events(path, run, 0)]
    return sum(isinstance(event, Commit) for event in found)


def test_a_commit_that_returned_is_in_the_repository(server: Server, archive: Archive) -> None:
    system = system_of(server)
    with ThreadedReceiver(archive, server, synchronous=True, every=600) as receiver:
        until(lambda: server.sql(SYNCHRONOUS) == "async", "the receiver streams")
        let_commits_wait(server)
        commit(server, 1)
        before = stored_commits(archive, system)
        for number in range(1, 8):
            commit(server, 1)
            assert stored_commits(archive, system) == before + number
        server.stop("fast")
    (told,) = [word for word in receiver.warnings if "commits do not wait" in word]
    assert "ALTER SYSTEM SET synchronous_standby_names = 'backstay_main'" in told
    with archive.open() as repository:
        files = repository.wal.files(system)
    assert not [file for file, stored in files.items() if stored.whole and stored.parts]


def test_a_commit_that_returned_outlives_server_and_receiver_on_this_machine(
    start_server: StartServer, archive: Archive
) -> None:
    server = start_server(wal_keep_size=0)
    server.sql("create table t(i int, v text)")
    system = system_of(server)
    spool = ("--spool", archive.place / "spool")
    receiver = archive.receiver(server, "--synchronous", "--ack", "local", "--every", "1h", *spool)
    until(lambda: server.sql(SYNCHRONOUS) == "async", "the receiver streams")
    let_commits_wait(server)
    commit(server, 8)
    receiver.kill()
    receiver.wait(10)
    server.stop("immediate")
    assert stored_commits(archive, system) == 0
    done = archive.run("pg", "receive", server.url, "--name", "main", *spool, status=15)
    assert "what only this machine had" in done.stderr
    assert stored_commits(archive, system) >= 8
    assert not list((archive.place / "spool").rglob("*.journal"))


def test_a_spool_of_a_running_receiver_is_left_alone(server: Server, archive: Archive) -> None:
    with ThreadedReceiver(archive, server, acknowledge="local"):
        until(lambda: server.sql(SYNCHRONOUS) == "async", "the receiver streams")
        with pytest.raises(SlotInUse, match="another receiver"), ThreadedReceiver(archive, server) as second:
            until(lambda: second.failure, "the second one ends")
    assert not list((archive.place / "spool").rglob("*.journal"))


def test_streams_that_break_off_do_not_leave_a_journal_each(server: Server, archive: Archive) -> None:
    flushed = "select flush_lsn >= pg_current_wal_flush_lsn() from pg_stat_replication"
    with ThreadedReceiver(archive, server, acknowledge="local") as receiver:
        for _ in range(3):
            until(lambda: server.sql(SYNCHRONOUS) == "async", "the receiver streams")
            commit(server, 1)
            until(lambda: server.sql(flushed) == "t", "all is acknowledged")
            server.sql("select pg_terminate_backend(pid) from pg_stat_replication")
            until(lambda: server.sql(SYNCHRONOUS) == "", "the stream ends")
        until(lambda: server.sql(SYNCHRONOUS) == "async", "the receiver streams again")
        assert receiver.failure is None
        assert len(list((archive.place / "spool").rglob("*.journal"))) <= 1  # none until the new stream brings WAL
