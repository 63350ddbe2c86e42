"""Recovery of MariaDB to a time, a position, a transaction or the end, and what is refused before it begins."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from backstay.errors import (
    BackstayError,
    CorruptedBackup,
    IdentityMismatch,
    InvalidRequest,
    NotFound,
    RestoreConflict,
    RestoreFailed,
    SourceUnreachable,
    TargetBeforeSnapshot,
    TargetNotCovered,
    WalGap,
)
from backstay.operations.mysql.expire import expire_binlog, plan_binlog_expiry
from backstay.operations.mysql.plan import BinlogTarget, plan_replay
from backstay.operations.mysql.recover import look_at_target, recover
from backstay.operations.mysql.windows import binlog_windows
from backstay.repository.format import wal_name
from backstay.repository.readers import announced
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.sources.mysql.binlog import parse_position
from tests.mysql.histories import STATE, History, at, planned, recovered
from tests.mysql.receivers import ENVIRON, NAME, Receiver, dump, stored, until_stored
from tests.mysql.servers import Server
from tests.postgres.receivers import Archive


def test_each_kind_of_target_leads_to_the_rows_of_its_moment(history: History, server: Server) -> None:
    with history.archive.open() as repository:
        for now, following in zip(history.moments, [*history.moments[1:], None], strict=True):
            until = following.second if following is not None else history.dropped
            targets = [
                at(until),
                BinlogTarget(kind="position", position=parse_position(now.position)),
                BinlogTarget(kind="gtid", gtid=now.gtid),
            ]
            for target in targets if now.gtid != history.moments[0].gtid else targets[:2]:
                assert recovered(repository, server, target) == now.state, target
        last = planned(repository)
        assert (last.transactions, last.accounts) == (4, 0)
        server.clear()
        recover(repository, last, server.url, environ=ENVIRON)
        assert server.sql("SHOW TABLES FROM shop") == ""  # it was dropped at last


def test_a_time_is_reached_only_when_something_later_was_logged(history: History) -> None:
    with history.archive.open() as repository:
        (window,) = binlog_windows(repository)
        assert window.start_time is not None
        assert window.end_time is not None
        assert window.start_time.timestamp() <= history.moments[0].second + 1
        assert window.end_time.timestamp() == history.dropped
        assert (window.snapshots, window.gap) == ((history.snapshot,), None)
        for second in (int(window.start_time.timestamp()), int(window.end_time.timestamp())):
            planned(repository, at(second))
        with pytest.raises(TargetBeforeSnapshot, match="lies before what can be recovered"):
            planned(repository, at(int(window.start_time.timestamp()) - 1))
        with pytest.raises(TargetNotCovered, match="is not covered") as refused:
            planned(repository, at(int(window.end_time.timestamp()) + 1))
        assert "the last event in it is of" in refused.value.cause


def test_without_anything_logged_behind_a_dump_no_time_can_be_named(origin: Server, archive: Archive) -> None:
    origin.sql("CREATE DATABASE shop; CREATE TABLE shop.item (id INT PRIMARY KEY)")
    with archive.open() as repository:
        dump(repository, origin)
        with Receiver(archive, origin) as receiver:
            until_stored(archive, origin, receiver)
        (window,) = binlog_windows(repository)
    assert (window.start_time, window.end_time, window.end) == (None, None, window.start)
    assert "no later second yet" in archive.run("mysql", "windows").stdout


def test_what_a_clock_that_was_ahead_leaves_out_is_told(server: Server, origin: Server, archive: Archive) -> None:
    origin.sql("CREATE DATABASE shop; CREATE TABLE shop.item (id INT PRIMARY KEY AUTO_INCREMENT, name TEXT)")
    with archive.open() as repository:
        dump(repository, origin)
        with Receiver(archive, origin) as receiver:
            ahead = "SET timestamp = unix_timestamp() + 4000; INSERT INTO item (name) VALUES ('ahead')"
            origin.sql(f"{ahead}; SET timestamp = default; INSERT INTO item (name) VALUES ('right'), ('too')", "shop")
            until_stored(archive, origin, receiver)
        plan = planned(repository, at(int(time.time()) + 3000))
        assert (plan.transactions, plan.left_out) == (0, 1)
        (warning,) = look_at_target(repository, plan, server.url, environ=ENVIRON).warnings
    assert warning.startswith(f"1 transaction behind {plan.end}")


def refused(repository: Repository, target: BinlogTarget) -> tuple[type[BackstayError], str]:
    with pytest.raises(BackstayError) as error:
        planned(repository, target)
    return type(error.value), str(error.value)


def test_positions_and_transactions_that_are_none_are_refused(history: History) -> None:
    begin, inside = (int(moment.position.partition(":")[2]) for moment in history.moments[:2])
    with history.archive.open() as repository:

        def position(text: str) -> tuple[type[BackstayError], str]:
            return refused(repository, BinlogTarget(kind="position", position=parse_position(text)))

        assert position("binlog.000001:4")[0] is TargetBeforeSnapshot
        assert position(f"binlog.000001:{begin + 43}") == (
            InvalidRequest,
            f"binlog.000001:{begin + 43} lies within a transaction: the transaction begins at binlog.000001:{begin}",
        )
        assert position(f"binlog.000001:{inside - 1}")[0] is InvalidRequest
        assert position("binlog.000003:99999")[0] is TargetNotCovered
        assert position("binlog.000009:4")[0] is TargetNotCovered
        assert position("other.000001:400")[0] is InvalidRequest
        assert refused(repository, BinlogTarget(kind="gtid", gtid="0-7-999"))[0] is TargetNotCovered
        for text in ("binlog.000001", "binlog:4", "../binlog.000001:4", ""):
            with pytest.raises(InvalidRequest):
                parse_position(text)


def test_a_missing_file_is_a_gap_that_is_found_before_anything_is_written(history: History) -> None:
    last = history.moments[1]
    with history.archive.open() as repository:
        found = stored(repository)
        repository.wal.remove(found.system, "binlog.000002.s00000", found.logs["binlog.000002"].slices[0])
        for target in (at(history.dropped), BinlogTarget()):
            kind, told = refused(repository, target)
            assert (kind, "binlog.000002 is missing or not complete" in told) == (WalGap, True), told
        planned(repository, BinlogTarget(kind="position", position=parse_position(last.position)))
        (window,) = binlog_windows(repository)
        assert window.gap is not None
        assert (window.gap.first, window.gap.last) == ("binlog.000002", "binlog.000002")
        repository.wal.remove(found.system, "binlog.000001.s00000", found.logs["binlog.000001"].slices[0])
        assert refused(repository, BinlogTarget())[0] is WalGap
        (window,) = binlog_windows(repository)
        assert (window.end, window.start_time) == (None, None)


def test_damage_on_the_way_is_found_by_the_plan(history: History) -> None:
    with history.archive.open() as repository:
        name = wal_name(stored(repository).system, "binlog.000002.s00000")
        data = repository.backend.retrieve(name)
        repository.backend.store(name, data[:-20] + bytes([data[-20] ^ 1]) + data[-19:], overwrite=True)
        assert refused(repository, BinlogTarget())[0] is CorruptedBackup
        planned(repository, BinlogTarget(kind="position", position=parse_position(history.moments[1].position)))


def test_only_an_empty_server_that_is_not_the_source_is_recovered_into(
    living: History, origin: Server, server: Server
) -> None:
    with living.archive.open() as repository:
        plan = planned(repository)

        def refused_at(url: str) -> BackstayError:
            with pytest.raises(BackstayError) as error:
                recover(repository, plan, url, environ=ENVIRON)
            return error.value

        server.sql("CREATE DATABASE other; CREATE TABLE other.thing (i INT)")
        conflict = refused_at(server.url)
        assert isinstance(conflict, RestoreConflict)
        assert "table other.thing" in conflict.cause
        assert server.sql("SHOW DATABASES LIKE 'shop'") == ""
        origin.clear()
        own = refused_at(origin.url)
        assert isinstance(own, InvalidRequest)
        assert "is the one whose binary log is stored" in own.title
        assert isinstance(refused_at(server.url + "shop"), InvalidRequest)
        assert isinstance(refused_at("mysql://root@127.0.0.1:1/"), SourceUnreachable)


def test_a_statement_that_fails_ends_the_replay_and_says_what_to_do(
    origin: Server, server: Server, archive: Archive
) -> None:
    origin.sql("CREATE DATABASE shop; CREATE TABLE shop.item (id INT PRIMARY KEY, name TEXT)")
    with archive.open() as repository, Receiver(archive, origin) as receiver:
        dump(repository, origin)
        origin.sql("CREATE USER test_app@localhost; GRANT SELECT ON shop.* TO test_app@localhost")
        origin.sql("INSERT INTO shop.item VALUES (1, '')")
        until_stored(archive, origin, receiver)
        plan = planned(repository)
        assert plan.accounts == 2
        server.sql("CREATE USER test_app@localhost")
        looked = look_at_target(repository, plan, server.url, environ=ENVIRON)
        assert "2 statements about accounts: load accounts.sql" in looked.warnings[0]
        with pytest.raises(RestoreFailed, match="CREATE USER failed") as failed:
            recover(repository, plan, server.url, environ=ENVIRON)
        assert failed.value.hint.startswith("drop the databases that were restored, mend it, and recover again")
        assert "name an older one" in failed.value.hint
        with pytest.raises(RestoreConflict):
            recover(repository, plan, server.url, environ=ENVIRON)
        server.clear()
        recover(repository, plan, server.url, environ=ENVIRON)
        assert server.sql("SELECT * FROM shop.item") == "1\t"


def test_times_of_other_zones_on_the_machine_change_nothing(history: History, server: Server) -> None:
    with history.archive.open() as repository:
        found = recovered(repository, server, at(history.moments[1].second), TZ="Asia/Kathmandu")
        assert found == history.moments[0].state


def commit_like(repository: Repository, manifest: Manifest, *, name: str, consistency: dict[str, str]) -> str:
    """A snapshot that differs from another one in what it tells of itself."""
    with repository.begin_session() as session:
        made = msgspec.structs.replace(
            manifest, id=session.id, name=name, previous=None, previous_digest=None, consistency=consistency
        )
        repository.snapshots.commit(made)
    return made.id


def test_dumps_of_another_server_or_of_one_database_are_not_replayed_onto(history: History, server: Server) -> None:
    server.sql("CREATE DATABASE shop; CREATE TABLE shop.item (id INT); FLUSH BINARY LOGS")
    with history.archive.open() as repository:
        one = dump(repository, server, database="shop")
        with pytest.raises(InvalidRequest, match="is a dump of one database"):
            planned(repository, snapshot=one)
        with pytest.raises(NotFound, match="no binary log is stored under the name other"):
            plan_replay(repository, "other", "latest", BinlogTarget())
        repository.wal.bind("elsewhere", stored(repository).system, repository.clock)
        manifest = repository.snapshots.get(history.snapshot)
        told = {**manifest.consistency, "gtid_position": "0-7-999"}
        commit_like(repository, manifest, name="elsewhere", consistency=told)
        with pytest.raises(IdentityMismatch, match="is not of the server") as mismatch:
            plan_replay(repository, "elsewhere", "latest", BinlogTarget())
        assert f"the log has come to {history.moments[0].gtid}, and the dump to 0-7-999" in mismatch.value.cause


def test_expiry_keeps_what_the_oldest_dump_needs(living: History, origin: Server) -> None:
    with living.archive.open() as repository:
        assert plan_binlog_expiry(repository, NAME).expired == ()
        with Receiver(living.archive, origin) as receiver:
            origin.sql("FLUSH BINARY LOGS")
            newest = dump(repository, origin)
            until_stored(living.archive, origin, receiver)
        assert plan_binlog_expiry(repository, NAME).expired == ()
        own = repository.snapshots.get(newest)
        early = {**own.consistency, "binlog_file": "binlog.000002"}
        other = commit_like(repository, own, name="crm", consistency={**early, "server_id": "another"})
        plan = plan_binlog_expiry(repository, NAME, window=timedelta(0))
        assert (plan.since, plan.first_kept, plan.kept) == (newest, "binlog.000004", 1), other
        commit_like(repository, own, name="crm", consistency=early)  # a dump of this server under another name
        held = plan_binlog_expiry(repository, NAME, window=timedelta(0))
        assert held.expired == ("binlog.000001",)
        assert plan.expired == ("binlog.000001", "binlog.000002", "binlog.000003")
        with announced(repository, warn=pytest.fail):
            assert expire_binlog(repository, plan).waiting_for  # a recovery may need it
        assert expire_binlog(repository, plan).removed == 3
        assert list(stored(repository).logs) == ["binlog.000004"]
        assert not [file for file in repository.wal.files(plan.system) if not file.startswith("binlog.000004")]
        planned(repository)
        with pytest.raises(NotFound):
            plan_binlog_expiry(repository, "other")


def test_expiry_does_not_take_a_dump_of_one_database_for_a_beginning(history: History) -> None:
    with history.archive.open() as repository:
        own = repository.snapshots.get(history.snapshot)
        later = {**own.consistency, "binlog_file": "binlog.000003"}
        single = msgspec.structs.replace(own, paths=(own.paths[0] + b"/shop",), time_ns=own.time_ns + 1000)
        commit_like(repository, single, name=NAME, consistency=later)
        plan = plan_binlog_expiry(repository, NAME, window=timedelta(0))
        assert (plan.since, plan.expired) == (history.snapshot, ())


def test_the_commands_plan_recover_and_tell(history: History, server: Server) -> None:
    archive, moments = history.archive, history.moments
    text = datetime.fromtimestamp(history.dropped, UTC).strftime("%Y-%m-%d %H:%M:%S")
    where = ("mysql", "restore", "--name", NAME, "--to", server.url)
    assert "is a time without a zone" in archive.run(*where, "--at", text, status=2).stderr
    assert "one target" in archive.run(*where, "--gtid", "0-1-1", "--at", f"{text}+00", status=2).stderr
    planned = archive.json(*where, "--at", f"{text}+00", "--dry-run")
    assert (planned["dry_run"], planned["snapshot"], planned["transactions"]) == (True, history.snapshot, 3)
    printed = archive.run("mysql", "windows").stdout.splitlines()[1].split()
    assert "nothing was written" in archive.run(*where, "--at", " ".join(printed[3:5]), "--dry-run").stdout
    assert server.sql("SHOW DATABASES LIKE 'shop'") == ""
    told = archive.run(*where, "--at", f"{text}+00").stdout
    assert f"dump {history.snapshot}" in told
    assert "3 transactions" in told
    assert server.sql(STATE) == moments[-1].state
    (window,) = archive.json("mysql", "windows")
    assert window["name"] == NAME
    assert window["start"] == moments[0].position
    assert (
        "0 files of the binary log would be removed, 3 kept"
        in archive.run("mysql", "expire", "--name", NAME, "--dry-run").stdout
    )
