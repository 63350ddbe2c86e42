"""A rehearsal recovers for real, tells what it found, and leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from backstay.core.clock import SystemClock
from backstay.core.events import Event, Progress
from backstay.errors import Interrupted, RecoveryFailed, RecoveryTimeout, RestoreConflict, VersionUnsupported
from backstay.operations.clusters.plan import RecoveryPlan, RecoveryTarget, plan_recovery
from backstay.operations.clusters.rehearse import RehearsalOptions, programs_of, rehearse_cluster, start_recovered
from backstay.operations.clusters.restore import restore_cluster
from backstay.repository.repository import Repository
from backstay.sources.postgres import local_server, scratch_server
from tests.postgres.conftest import StartServer
from tests.postgres.receivers import Archive
from tests.postgres.recovering import NAME, back_up
from tests.postgres.recovering import archive as store_wal
from tests.postgres.servers import AS_ROOT, Server, installation

LONG = "select pg_sleep(60)"


def planned(repository: Repository, server: Server) -> RecoveryPlan:
    server.sql("create table t as select generate_series(1, 1000) x; create index on t(x)")
    back_up(repository, server)
    server.sql("insert into t select generate_series(1, 500)")
    store_wal(repository, server)
    return plan_recovery(repository, NAME, "latest", RecoveryTarget())


def options(place: Path, *sql: str, programs: Path | None = None) -> RehearsalOptions:
    programs = programs or installation(18) / "bin"
    return RehearsalOptions(scratch=place / "scratch", programs=programs, assertions=sql, patience_s=60)


def test_the_evidence_says_what_was_recovered(repository: Repository, server: Server, place: Path) -> None:
    plan = planned(repository, server)
    asked = ("select count(*) = 1500 from t", "select count(*) = 7 from t", "select * from nowhere")
    several = ("select true; select false", "select set_config('work_mem', '8MB', false); select true")
    found = rehearse_cluster(repository, plan, options(place, *asked, *several))
    assert found.amcheck == "ok", found.amcheck_output
    assert [assertion.ok for assertion in found.assertions] == [True, False, False, False, True]
    assert "nowhere" in found.assertions[2].value
    assert not found.ok
    assert found.timeline == 2
    assert found.last_commit is not None
    assert not (place / "scratch").exists()
    assert server.sql("select count(*) from t") == "1500"  # the server itself was left alone
    good = rehearse_cluster(repository, plan, options(place, asked[0]))
    assert good.ok


def test_a_rehearsal_does_none_of_the_work_of_the_server(
    repository: Repository, start_server: StartServer, place: Path
) -> None:
    publisher = start_server("publisher", wal_level="logical")
    server = start_server(shared_preload_libraries="pg_prewarm")  # which starts a worker
    for each in (publisher, server):
        each.sql("create table shared (x int)")
    publisher.sql("create publication p for table shared")
    publisher.sql("select pg_create_logical_replication_slot('s', 'pgoutput')")
    server.sql(
        f"create subscription s connection '{publisher.url}' publication p"
        " with (create_slot = false, copy_data = false, slot_name = s)"
    )
    server.sql("create function away() returns event_trigger language plpgsql as $$ begin perform 1 / 0; end $$")
    server.sql("create event trigger away on ddl_command_start execute function away()")
    back_up(repository, server)
    plan = plan_recovery(repository, NAME, "latest", RecoveryTarget(kind="immediate"))
    server.stop()
    publisher.sql("insert into shared select generate_series(1, 100)")
    none = "select current_setting('max_worker_processes') = '0'"
    loaded = "select current_setting('shared_preload_libraries') = 'pg_prewarm'"
    slot = "select confirmed_flush_lsn, active from pg_replication_slots"
    before = publisher.sql(slot)
    assert before.endswith("|f")
    found = rehearse_cluster(repository, plan, options(place, none, loaded, "select count(*) = 0 from shared"))
    assert found.ok, found
    assert publisher.sql(slot) == before


def test_a_recovery_that_fails_is_told_with_the_log(
    repository: Repository, server: Server, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(repository, server)
    given = scratch_server.ScratchServer._settings
    monkeypatch.setattr(
        scratch_server.ScratchServer, "_settings", lambda it: {**given(it), "max_connections": "nonsense"}
    )
    with pytest.raises(RecoveryFailed) as caught:
        rehearse_cluster(repository, plan, options(place))
    assert "max_connections" in f"{caught.value.cause} {caught.value.hint}"
    assert not (place / "scratch").exists()


def test_a_recovery_that_takes_too_long_is_told(
    repository: Repository, server: Server, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(repository, server)
    monkeypatch.setattr(local_server, "_waiting", lambda _: ("-t", "60", "-w"))
    monkeypatch.setattr(local_server.LocalServer, "_is_promoted", lambda _: False)
    with pytest.raises(RecoveryTimeout, match="not recovered within 0 s") as caught:
        rehearse_cluster(repository, plan, replace(options(place), patience_s=0.1))
    assert "the end of its log" in caught.value.hint
    assert not (place / "scratch").exists()


def test_a_damaged_index_is_found(repository: Repository, server: Server, place: Path) -> None:
    server.sql("create table t as select generate_series(1, 1000) x; create index t_x on t(x)")
    file = server.data / server.sql("select pg_relation_filepath('t_x')")
    server.stop("fast")
    data = bytearray(file.read_bytes())
    data[8192 + 4096 :: 8192] = b"\x55" * len(data[8192 + 4096 :: 8192])
    file.write_bytes(data)
    server.tool("pg_checksums", "--disable", "-D", server.data)
    server.start()
    back_up(repository, server)
    found = rehearse_cluster(repository, plan_recovery(repository, NAME, "latest", RecoveryTarget()), options(place))
    assert found.amcheck == "failed"
    assert not found.ok


@dataclass
class Stopping:
    """Asks to stop when something is waited for, and knows which server ran then."""

    data: Path
    when: str
    server: int = 0

    def __call__(self, event: Event) -> None:
        pid = self.data / "postmaster.pid"
        if isinstance(event, Progress) and event.current == self.when and pid.exists() and (lines := pid.read_text()):
            self.server = int(lines.splitlines()[0])
            raise Interrupted("interrupted", cause="a test asked for it")

    @property
    def left_a_server(self) -> bool:
        command = Path(f"/proc/{self.server}/cmdline")
        return self.server == 0 or (command.exists() and command.read_bytes() != b"")  # which it has as a zombie


@pytest.mark.parametrize("when", ["check indexes", LONG])
def test_a_rehearsal_that_is_interrupted_leaves_nothing_behind(
    repository: Repository, server: Server, place: Path, when: str
) -> None:
    plan = planned(repository, server)
    programs = place / "programs"
    programs.mkdir()
    if when == "check indexes":
        (programs / "pg_amcheck").write_text("#!/bin/sh\nsleep 60\n")
        (programs / "pg_amcheck").chmod(0o755)
    (programs / "pg_ctl").symlink_to(installation(18) / "bin" / "pg_ctl")
    events = Stopping(place / "scratch", when)
    with pytest.raises(Interrupted):
        rehearse_cluster(repository, plan, options(place, LONG, programs=programs), events=events)
    assert not events.left_a_server
    assert not (place / "scratch").exists()


@pytest.mark.parametrize(
    "slow",
    [{"recovery_min_apply_delay": "1h"}, {"restore_command": "sleep 60"}],
    ids=["behind its start", "at its start"],
)
def test_a_recovery_that_is_interrupted_stops_its_server(
    repository: Repository, server: Server, place: Path, slow: dict[str, str]
) -> None:
    plan = planned(repository, server)
    copy = Server(place, name="copy")
    restore_cluster(repository, plan, copy.data)
    copy.configure("postgresql.auto.conf", port=copy.port, **slow)
    events = Stopping(copy.data, "recover")
    with pytest.raises(Interrupted):
        start_recovered(copy.data, installation(18) / "bin", patience_s=60, clock=SystemClock(), events=events)
    assert not events.left_a_server
    assert not (copy.data / "postmaster.pid").exists()


def test_whoever_interrupts_a_recovery_is_told_how_it_goes_on(archive: Archive, server: Server, place: Path) -> None:
    with archive.open() as repository:
        planned(repository, server)
    programs = place / "programs"
    programs.mkdir()
    (programs / "pg_ctl").write_text(f"#!/bin/sh\ntouch {place}/asked\nsleep 60\n")
    (programs / "pg_ctl").chmod(0o755)
    argv = ("pg", "restore", "--name", NAME, "--to", place / "copy", "--programs", programs, "--start")
    with subprocess.Popen(**archive.command(*argv), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
        until = time.monotonic() + 60
        while not (place / "asked").exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        run.send_signal(signal.SIGTERM)
        _, told = run.communicate(timeout=60)
    assert run.returncode == Interrupted.exit_status
    assert f"all is restored: `pg_ctl -D {place / 'copy'} start` goes on" in told.decode()


def test_what_is_in_the_way_or_missing_is_told_first(repository: Repository, server: Server, place: Path) -> None:
    plan = planned(repository, server)
    (place / "scratch").mkdir()
    (place / "scratch" / "mine").touch()
    with pytest.raises(RestoreConflict):
        rehearse_cluster(repository, plan, options(place))
    assert (place / "scratch" / "mine").exists()
    (place / "scratch" / "mine").unlink()
    with pytest.raises(RecoveryFailed, match="cannot run"):
        rehearse_cluster(repository, plan, options(place, programs=place / "nowhere"))
    assert (place / "scratch").exists()  # it was there before
    plan = replace(plan, base=replace(plan.base, version="12.1"))
    with pytest.raises(VersionUnsupported, match="12"):
        rehearse_cluster(repository, plan, RehearsalOptions(scratch=place / "scratch"), environ={})


def test_a_restored_server_is_started_and_watched(
    repository: Repository, server: Server, place: Path, stopping: list[Server]
) -> None:
    plan = planned(repository, server)
    copy = Server(place, name="copy")
    stopping.append(copy)
    restore_cluster(repository, plan, copy.data)
    copy.configure("postgresql.auto.conf", port=copy.port)
    start_recovered(copy.data, programs_of(plan, installation(18) / "bin", {}), patience_s=60, clock=SystemClock())
    assert copy.sql("select count(*), pg_is_in_recovery() from t") == "1500|f"
    copy.stop()


def test_a_server_starts_below_directories_that_the_restore_made(
    repository: Repository, server: Server, place: Path, stopping: list[Server]
) -> None:
    plan = planned(repository, server)
    copy = Server(place, name="above/copy")
    stopping.append(copy)
    restore_cluster(repository, plan, copy.data)
    copy.configure("postgresql.auto.conf", port=copy.port)
    start_recovered(copy.data, installation(18) / "bin", patience_s=60, clock=SystemClock())
    assert copy.sql("select count(*) from t") == "1500"
    copy.stop()


@pytest.mark.skipif(not AS_ROOT, reason="who runs the server can enter what is his own")
def test_a_directory_that_the_server_cannot_enter_is_told(repository: Repository, server: Server, place: Path) -> None:
    plan = planned(repository, server)
    restore_cluster(repository, plan, place / "closed" / "copy")
    (place / "closed").chmod(0o700)
    with pytest.raises(RecoveryFailed) as caught:
        start_recovered(place / "closed" / "copy", installation(18) / "bin", patience_s=60, clock=SystemClock())
    assert "Permission denied" in caught.value.cause
    assert str(place / "closed" / "copy") in caught.value.hint


def test_a_server_whose_wal_was_lost_is_told_of_and_stopped(
    repository: Repository, server: Server, place: Path
) -> None:
    server.sql("select pg_switch_wal()")
    plan = planned(repository, server)
    restore_cluster(repository, plan, place / "copy")
    (place / "copy" / "backstay_wal" / plan.segments[0].name).unlink()
    with pytest.raises(RecoveryFailed) as caught:
        start_recovered(place / "copy", installation(18) / "bin", patience_s=60, clock=SystemClock())
    assert "log" in caught.value.hint
    assert not (place / "copy" / "postmaster.pid").exists()
