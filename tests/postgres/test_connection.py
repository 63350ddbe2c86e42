"""Sessions of a real server, and what is told when one cannot be had."""

from __future__ import annotations

import pytest

from backstay.errors import Interrupted, InvalidRequest, ReplicationDenied, SourceRefused, SourceUnreachable
from backstay.sources.postgres.connection import Connection
from tests.ports import free_port
from tests.postgres.servers import Server


def test_queries_and_the_replication_protocol_work(server: Server) -> None:
    with Connection(server.url) as plain:
        assert plain.query("select 1, null, 'ä'") == [["1", None, "ä"]]
        assert plain.version == 18
    with Connection(server.url, replication=True) as replication:
        system, timeline, position, _ = replication.query("IDENTIFY_SYSTEM")[0]
    assert server.sql("select system_identifier from pg_control_system()") == system
    assert timeline == "1"
    assert position is not None
    assert "/" in position


def test_of_several_commands_the_last_one_gives_the_rows(server: Server) -> None:
    set_first = "select set_config('work_mem', '8MB', false); select current_setting('work_mem'), 1"
    with Connection(server.url) as plain:
        for ask in (plain.query, lambda sql: plain.watched_query(sql, lambda: None)):
            assert ask(set_first) == [["8MB", "1"]]
            assert ask("select true; select false") == [["f"]]
            assert ask("select true; set work_mem = '9MB'") == []
            with pytest.raises(SourceRefused, match="select true"):
                ask("select true; select * from nowhere; select true")


def test_a_wish_to_stop_cancels_a_later_command_too(server: Server) -> None:
    waits = iter(range(3))

    def stop() -> None:
        if next(waits, None) is None:
            raise Interrupted("interrupted", cause="a test asked for it")

    several = "select 1;" * 1000 + "select pg_sleep(20)"  # so many that the first results come at once
    with Connection(server.url) as plain:
        with pytest.raises(Interrupted):
            plain.watched_query(several, stop)
        with pytest.raises(SourceRefused) as cancelled:
            plain.results()
        assert "user request" in cancelled.value.cause


@pytest.mark.parametrize("sql", ["copy (select 1) to stdout", "select 1; copy (select 1) to stdout"])
def test_a_copy_is_refused_and_the_session_goes_on(server: Server, sql: str) -> None:
    with Connection(server.url) as plain:
        for ask in (plain.query, lambda sql: plain.watched_query(sql, lambda: None)):
            with pytest.raises(SourceRefused, match="copies data"):
                ask(sql)
            assert ask("select 1") == [["1"]]


def test_what_is_wrong_has_its_own_error(server: Server) -> None:
    with pytest.raises(SourceUnreachable, match="cannot connect"):
        Connection(f"postgresql://postgres@127.0.0.1:{free_port()}/postgres")
    with pytest.raises(SourceRefused, match="none"):
        Connection(server.url.replace("/postgres?", "/none?").removesuffix("/postgres") + "/none")
    with pytest.raises(InvalidRequest, match="address"):
        Connection("postgresql://[broken/")
    server.sql("create role watcher login")
    with pytest.raises(ReplicationDenied) as denied:
        Connection(server.url.replace("postgres@", "watcher@"), replication=True)
    assert "REPLICATION" in denied.value.hint
    with Connection(server.url) as plain, pytest.raises(SourceRefused, match="nowhere"):
        plain.query("select * from nowhere")


def test_a_server_that_goes_away_is_unreachable(server: Server) -> None:
    with Connection(server.url, replication=True) as replication:
        server.stop()
        with pytest.raises(SourceUnreachable):
            replication.query("IDENTIFY_SYSTEM")


def test_a_password_is_in_no_message() -> None:
    with pytest.raises(SourceUnreachable) as caught:
        Connection(f"postgresql://me:very-secret@127.0.0.1:{free_port()}/postgres")
    assert "very-secret" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("address", ["mysql://me:very-secret@db.example/shop", "very-secret"])
def test_an_address_of_something_else_is_told_as_such(address: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Connection(address)
    assert caught.value.cause == "it begins with no postgresql://, and is no list of name=value"
    assert "very-secret" not in f"{caught.value} {caught.value.hint}"
