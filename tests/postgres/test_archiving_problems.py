"""`pg status` says why a server's archiver gets nowhere."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from backstay.operations.archiving.problems import archives_here, archiving_problems
from backstay.repository.wal.store import StoredFile
from backstay.sources.postgres.archiving import Archiving, read_archiving, says_yes
from backstay.sources.postgres.connection import Connection
from tests.postgres.conftest import StartServer
from tests.postgres.made_wal import DAY
from tests.postgres.receivers import NAME, Archive, ThreadedReceiver, add_base, until, until_stored
from tests.postgres.servers import Server

LAST = "000000010000000000000003"


def said(**changes: Any) -> Archiving:
    """A server whose archiver is well, but for some changes."""
    usual: dict[str, Any] = {
        "is_on": True,
        "has_command": True,
        "discards": False,
        "last_file": LAST,
        "last_time": DAY,
        "failed_file": None,
        "failed_time": None,
        "failures": 0,
        "waiting": 0,
        "waiting_s": 0.0,
    }
    return Archiving(**{**usual, **changes})


def test_what_is_well_is_no_problem() -> None:
    earlier = DAY - timedelta(minutes=1)
    for well in (
        said(),
        said(is_on=False, has_command=False, waiting=7, waiting_s=9000.0),
        said(failed_file=LAST, failed_time=earlier, failures=3),
        said(waiting=2, waiting_s=10.0),
        said(last_file=None, last_time=None),
    ):
        assert archiving_problems(well) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"has_command": False}, "archive_command is empty"),
        ({"discards": True}, "WAL is lost"),
        ({"failed_file": LAST, "failed_time": DAY + timedelta(seconds=1), "failures": 1}, f"{LAST} was refused, once"),
        ({"last_time": None, "failed_file": LAST, "failed_time": DAY, "failures": 4}, "4 times in all"),
        ({"waiting": 3, "waiting_s": 3600.0}, "3 files wait to be archived, the oldest for 1 h"),
        ({"last_file": None, "last_time": None, "waiting": None}, "a role with pg_monitor"),
    ],
)
def test_each_cause_is_told(changes: dict[str, Any], told: str) -> None:
    (problem,) = archiving_problems(said(**changes))
    assert told in problem


def test_what_was_archived_elsewhere_is_known() -> None:
    whole, part = {LAST: StoredFile(whole=True)}, {LAST: StoredFile(parts=[(0, 8192)])}
    assert archives_here(said(), whole)
    assert archives_here(said(last_file=f"{LAST}.partial"), part)
    assert not archives_here(said(), part)
    assert not archives_here(said(), {})
    assert not archives_here(said(is_on=False), whole)


@pytest.mark.parametrize(
    "command", ["/bin/true", "true", ":", "cp %p /nowhere || true", "exit 0", "( : )", "/usr/bin/true %p", "a;true"]
)
def test_commands_that_lose_wal_are_known(command: str) -> None:
    assert says_yes(command)


@pytest.mark.parametrize("command", ["test ! -e %p || exit 1", "cp --true %p x:y", "/opt/truest %p", "false", ""])
def test_commands_that_may_fail_lose_nothing(command: str) -> None:
    assert not says_yes(command)


def change(server: Server, command: str) -> Archiving:
    """Let the server archive by another command; what it says then."""
    server.sql(f"alter system set archive_command = '{command}'")
    server.sql("select pg_reload_conf()")
    until(lambda: server.sql("show archive_command") == command, "the command is taken")
    with Connection(server.url) as connection:
        return read_archiving(connection)


def test_a_server_says_how_it_archives(start_server: StartServer, archive: Archive) -> None:
    server = start_server(version=16, archive_mode="on")

    def problems() -> list[str]:
        return list(archive.json("pg", "status", "--name", NAME, server.url, status=1)["problems"])

    assert not change(server, "").has_command
    assert change(server, "/bin/true").discards
    change(server, "false")
    with ThreadedReceiver(archive, server):
        add_base(archive, server)
        server.sql("create table t(i int); select pg_switch_wal()")
        until(lambda: server.sql("select failed_count > 0 from pg_stat_archiver") == "t", "it has failed")
        until_stored(archive, server)
    assert any("archiving fails: 0000" in problem for problem in problems())
    change(server, "test -e %p")
    caught_up = "select last_archived_wal = last_failed_wal from pg_stat_archiver"
    until(lambda: server.sql(caught_up) == "t", "it has archived", 90)
    server.sql("select pg_drop_replication_slot(slot_name) from pg_replication_slots")
    well = archive.json("pg", "status", "--name", NAME, server.url)
    assert (well["problems"], well["server"]["archiving"]["is_on"]) == ([], True)
    server.sql("create table more(i int); select pg_switch_wal()")
    until(lambda: server.sql(caught_up) == "f", "more is archived")
    assert any("elsewhere: it is not stored here" in problem for problem in problems())
    server.sql("create role nobody_much login")
    with Connection(server.url.replace("postgres@", "nobody_much@")) as connection:
        assert read_archiving(connection).waiting is None
