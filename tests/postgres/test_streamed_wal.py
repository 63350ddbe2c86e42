"""WAL that is brought while a server recovers: in time, all of it, and never less than that without a word."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from backstay.core.clock import SystemClock
from backstay.core.events import Event, Progress
from backstay.core.pipeline import Workers
from backstay.errors import BackstayError, CorruptedBackup, NotFound, RecoveryFailed, WalGap
from backstay.operations.clusters.plan import RecoveryPlan, RecoveryTarget, plan_recovery
from backstay.operations.clusters.rehearse import start_recovered
from backstay.operations.clusters.restore import ClusterRestoreOptions, restore_cluster
from backstay.operations.clusters.serving import AHEAD, WalService, serving
from backstay.repository.format import wal_name
from backstay.repository.repository import Repository
from tests.postgres.conftest import StartServer
from tests.postgres.receivers import Archive
from tests.postgres.recovering import NAME, archive, back_up
from tests.postgres.servers import Server, installation

STREAM = ClusterRestoreOptions(wal="stream")


@pytest.fixture
def plan(repository: Repository, start_server: StartServer) -> RecoveryPlan:
    """Of more segments than are brought ahead; 4000 rows are there at the end."""
    server = start_server(segment_mib=1)
    server.sql("create table t(x int)")
    back_up(repository, server)
    server.sql("insert into t select generate_series(1, 100); select pg_switch_wal();" * 40)
    archive(repository, server)
    server.stop("fast")
    return plan_recovery(repository, NAME, "latest", RecoveryTarget())


@pytest.fixture
def copy(repository: Repository, plan: RecoveryPlan, place: Path) -> Iterator[Server]:
    """Restored, and waiting for its WAL."""
    copy = Server(place, name="copy")
    restore_cluster(repository, plan, copy.data, STREAM)
    copy.configure("postgresql.auto.conf", port=copy.port)
    yield copy
    copy.stop()


def start(repository: Repository, copy: Server, *, served: bool = True) -> None:
    with serving(repository, copy.data) if served else nullcontext():
        start_recovered(copy.data, installation(18) / "bin", patience_s=60, clock=SystemClock())


@contextmanager
def damaged(repository: Repository, plan: RecoveryPlan, number: int, data: bytes | None) -> Iterator[None]:
    """With other bytes in the place of a segment, or nothing."""
    name = wal_name(plan.base.system, plan.segments[number].name)
    whole = repository.backend.retrieve(name)
    repository.backend.delete(name)
    if data is not None:
        repository.backend.store(name, data)
    yield
    repository.backend.store(name, whole, overwrite=True)


def log_of(copy: Server) -> str:
    return (copy.data / "server.log").read_text()


def test_a_server_recovers_with_no_more_than_a_few_segments_on_disk(
    repository: Repository, plan: RecoveryPlan, copy: Server
) -> None:
    assert len(plan.segments) > 2 * AHEAD
    most = [0]

    def look(event: Event) -> None:
        if isinstance(event, Progress):
            most[0] = max(most[0], len([*(copy.data / "backstay_wal").glob("0*")]))

    ended: list[bool] = []
    thread = threading.Thread(target=lambda: ended.append(WalService.open(repository, copy.data, events=look).run()))
    thread.start()
    start(repository, copy, served=False)
    thread.join(timeout=30)
    assert ended == [True]
    assert 0 < most[0] <= AHEAD + 4
    assert copy.sql("select count(*), pg_is_in_recovery() from t") == "4000|f"
    assert [path.name for path in copy.data.glob("backstay*")] == []
    with pytest.raises(NotFound, match="no server that waits"):
        WalService.open(repository, copy.data)


def test_a_segment_that_comes_right_behind_the_listing_is_not_taken_for_used_up(
    repository: Repository, plan: RecoveryPlan, copy: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = WalService.open(repository, copy.data)
    listed = os.listdir

    def late(place: Path) -> list[str]:
        found = listed(place)
        wait(service.coming.values())
        return found

    monkeypatch.setattr(os, "listdir", late)
    with Workers(2, "serve") as workers:
        for _ in range(3):
            service._look(workers)
    assert (service.taken, service.next, len(service.ready)) == (0, 0, AHEAD)


@pytest.mark.parametrize("kind", ["gap", "damage"])
def test_a_segment_that_cannot_be_had_stops_the_server_and_is_told_until_it_is_mended(
    repository: Repository, plan: RecoveryPlan, copy: Server, kind: str
) -> None:
    number = 2 * AHEAD
    error: type[BackstayError] = NotFound if kind == "gap" else CorruptedBackup
    with damaged(repository, plan, number, None if kind == "gap" else b"damage" * 100):
        with pytest.raises((error, WalGap)) as caught:
            start(repository, copy)
        assert plan.segments[number].name in str(caught.value)
    assert "archive recovery complete" not in log_of(copy)
    assert plan.segments[number].name in log_of(copy)
    assert "backstay pg fetch" in log_of(copy)
    assert not (copy.data / "postmaster.pid").exists()
    start(repository, copy)  # goes on where it stopped
    assert copy.sql("select count(*) from t") == "4000"


def test_without_anybody_who_brings_wal_a_server_stops(repository: Repository, copy: Server) -> None:
    script = copy.data / "backstay_wal" / "get"
    script.write_text(script.read_text().replace("% 1500", "% 20"))
    with pytest.raises(RecoveryFailed):
        start(repository, copy, served=False)
    assert "nobody brings" in log_of(copy)
    assert "archive recovery complete" not in log_of(copy)
    assert not WalService.open(repository, copy.data).run(lambda: True)
    with pytest.raises(RecoveryFailed):
        start(repository, copy, served=False)
    assert "who brought WAL was stopped" in log_of(copy)


def test_the_end_is_told_only_behind_what_was_planned(plan: RecoveryPlan, copy: Server) -> None:
    directory = copy.data / "backstay_wal"
    last, middle = plan.segments[-1].name, plan.segments[5].name
    (directory / "ended").write_text("stopped")
    cases = {
        f"{int(last, 16) + 1:024X}": 1,  # the next one
        f"00000002{middle[8:]}": 1,  # of a timeline that was not asked for
        "00000002.history": 1,
        middle: 126,
        last: 126,
        f"{int(plan.segments[0].name, 16) - 1:024X}": 126,  # before the base backup
    }
    for name, status in cases.items():
        done = subprocess.run(["sh", directory / "get", name, copy.data / "taken"], capture_output=True, text=True)
        assert done.returncode == status, name
        assert bool(done.stderr) == (status != 1), name
    (directory / middle).write_bytes(b"wal")
    assert subprocess.run(["sh", directory / "get", middle, copy.data / "taken"]).returncode == 0
    assert (copy.data / "taken").read_bytes() == b"wal"
    (directory / "segments").unlink()
    assert subprocess.run(["sh", directory / "get", middle, copy.data / "taken"], capture_output=True).returncode == 126


def test_the_commands_bring_wal_until_they_are_stopped_or_the_server_has_recovered(
    archive: Archive, start_server: StartServer, place: Path
) -> None:
    server = start_server(segment_mib=1)
    server.sql("create table t as select 1 x")
    archive.run("pg", "backup", server.url, "--name", "main")
    copy = Server(place, name="copy")
    argv = ("pg", "restore", "--name", "main", "--to", copy.data, "--wal", "stream", "--port", copy.port)
    with subprocess.Popen(**archive.command(*argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        archive.processes.append(process)
        assert process.stdout is not None
        assert any(b"WAL is brought" in line for line in process.stdout)
        process.terminate()
        told = process.communicate(timeout=30)[1].decode()
    assert process.returncode == 130, told
    assert f"backstay pg fetch {copy.data}" in told
    with subprocess.Popen(**archive.command("pg", "fetch", copy.data), stdout=subprocess.PIPE) as process:
        archive.processes.append(process)
        assert process.stdout is not None
        assert b"WAL is brought" in process.stdout.readline()
        copy.start()
        copy.wait_until_promoted()
        assert b"has recovered" in process.communicate(timeout=30)[0]
    assert process.returncode == 0
    assert copy.sql("select count(*) from t") == "1"
    copy.stop()
