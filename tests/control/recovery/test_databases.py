"""Recoveries of PostgreSQL: dumps and clusters, asked afterwards, and a process that is killed on the way."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from backstay.control.recovery.previewing import preview_plan
from backstay.control.recovery.running import state_file
from backstay.control.recovery.state import Event, RecoveryState
from backstay.core.clock import SystemClock
from backstay.errors import Interrupted, StepTimeout
from backstay.operations.clusters.backup import ClusterBackupOptions, back_up_cluster
from tests.cli.conftest import SOURCE
from tests.control.manager.conftest import PASSWORD
from tests.control.recovery.conftest import Site
from tests.postgres.dumps import new_database
from tests.postgres.servers import Server, running_server


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        new_database(server, "shop", "create table t as select generate_series(1, 3000) i")
        yield server


def address(server: Server, database: str) -> str:
    return server.url.removesuffix("/postgres") + f"/{database}"


def plan(server: Server, database: str, more: str = "") -> str:
    return f"""
    steps:
      database:
        type: restore
        backup: latest:db
        to: "{address(server, database)}"
        verify: true
      rows:
        type: query
        connection: "{address(server, database)}"
        query: SELECT count(*) FROM t
        expect: 3000
        needs: [database]
      {more}
    """


class Crash(BaseException):
    """The process ends here."""


def test_a_dump_is_restored_and_asked(site: Site, server: Server) -> None:
    site.manager.create_backup(address(server, "shop"), name="db")
    new_database(server, "restored")
    done = site.recover(plan(server, "restored"))
    assert done.ok, done.errors
    state = RecoveryState.peek(state_file(site.plan_file), site.clock)
    assert state.of("rows").result == {"value": "3000"}
    assert state.of("database").result["verified"] == 1


def test_a_dump_that_was_restored_but_not_noted_is_restored_again(
    site: Site, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was the step's own: its target had been empty, which is noted before anything is written."""
    site.manager.create_backup(address(server, "shop"), name="db")
    new_database(server, "again")
    note = RecoveryState.note

    def crash(state: RecoveryState, name: str, event: Event, **facts: object) -> None:
        if event == "done":
            raise Crash
        note(state, name, event, **facts)

    monkeypatch.setattr(RecoveryState, "note", crash)
    with pytest.raises(Crash):
        site.recover(plan(server, "again"))
    assert server.sql("select count(*) from t", "again") == "3000"
    monkeypatch.undo()
    assert site.recover().ok
    assert server.sql("select count(*) from t", "again") == "3000"


def test_a_query_that_does_not_end_is_cancelled(site: Site, server: Server) -> None:
    """By its time, and by who asks for the end; the server stops working on it too."""
    text = f"""
    steps:
      ask: {{type: query, connection: "{address(server, "shop")}", query: "SELECT pg_sleep(60)", timeout: 1s}}
    """
    assert isinstance(site.recover(text).errors["ask"], StepTimeout)

    def stop() -> None:
        if ("ask", "begun") in site.told[-1:]:
            raise Interrupted("interrupted")

    with pytest.raises(Interrupted):
        site.recover(text.replace(", timeout: 1s", ""), stop_if_asked=stop)
    left = "select count(*) from pg_stat_activity where state = 'active' and query like 'SELECT pg_sleep%'"
    assert server.sql(left, "shop") == "0"


def test_what_was_there_before_is_never_replaced(site: Site, server: Server) -> None:
    site.manager.create_backup(address(server, "shop"), name="db")
    new_database(server, "taken", "create table t(mine int)")
    for _ in range(2):
        done = site.recover(plan(server, "taken"))
        assert "are in the way" in str(done.errors["database"])
    assert server.sql("select count(*) from t", "taken") == "0"


def test_a_process_that_is_killed_is_gone_on_from(site: Site, server: Server) -> None:
    site.manager.create_backup(address(server, "shop"), name="db")
    new_database(server, "killed")
    site.plan(plan(server, "killed", 'wait: {type: command, command: [sleep, "60"], needs: [rows]}'))
    environ = {**site.environ, "PYTHONPATH": str(SOURCE), "BACKSTAY_PASSWORD": PASSWORD, "ROOT": str(site.root)}
    words = [sys.executable, "-m", "backstay", "-r", str(site.root / "repository"), "recover", str(site.plan_file)]
    running = subprocess.Popen(words, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    try:
        for line in running.stderr:
            if line == "wait: begun\n":
                break
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
        running.stderr.close()
    text = site.plan_file.read_text().replace('"60"', '"0"')
    site.plan_file.write_text(text)
    done = subprocess.run([*words, "--json"], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert server.sql("select count(*) from t", "killed") == "3000"
    state = RecoveryState.peek(state_file(site.plan_file), SystemClock())
    assert [state.of(name).attempts for name in ("database", "rows", "wait")] == [1, 1, 2]


def test_a_cluster_is_recovered_also_after_a_run_that_was_cut_short(
    site: Site, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site.manager.opener.open(grows=True) as repository:
        back_up_cluster(repository, server.url, ClusterBackupOptions(name="main", host="here"))
    text = """
    steps:
      cluster: {type: cluster, cluster: main, to: "${ROOT}/pg", port: 5999}
      there: {type: file, path: "${ROOT}/pg/recovery.signal", needs: [cluster]}
    """
    loaded, state = site.plan(text), RecoveryState.peek(state_file(site.plan_file), site.clock)
    looked = preview_plan(loaded, state, site.manager, environ=site.environ, clock=site.clock)
    assert looked.error is None
    assert looked.document["bytes"] > 10 << 20
    note = RecoveryState.note

    def crash(state: RecoveryState, name: str, event: Event, **facts: object) -> None:
        if event == "done":
            raise Crash
        note(state, name, event, **facts)

    monkeypatch.setattr(RecoveryState, "note", crash)
    with pytest.raises(Crash):
        site.recover()
    monkeypatch.undo()
    (site.root / "pg/PG_VERSION").unlink()
    done = site.recover()
    assert done.ok, done.errors
    assert (site.root / "pg/PG_VERSION").exists()
    assert "5999" in (site.root / "pg/postgresql.auto.conf").read_text()
