"""Recovery to any point: what a server holds afterwards is what it held then, or it is told why it cannot be."""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backstay.errors import (
    CorruptedBackup,
    InvalidRequest,
    NotFound,
    TargetAmbiguousTimeline,
    TargetBeforeSnapshot,
    TargetNotCovered,
    WalGap,
)
from backstay.operations.clusters.plan import RecoveryTarget, plan_recovery
from backstay.operations.clusters.restore import restore_cluster
from backstay.repository.format import wal_name
from backstay.repository.repository import Repository
from backstay.sources.postgres.lsn import is_segment, parse_lsn
from tests.postgres.conftest import StartServer
from tests.postgres.recovering import NAME, archive, back_up, recovered, restored
from tests.postgres.servers import Server

TARGETS = int(os.environ.get("BACKSTAY_RANDOM_TARGETS", "4"))  # more of them are tried before a release
LATEST = RecoveryTarget()


@dataclass(frozen=True)
class Moment:
    """What the server held at some time, and all ways to name that."""

    rows: int
    time: datetime
    lsn: int
    xid: int
    point: str

    def targets(self) -> list[RecoveryTarget]:
        return [
            RecoveryTarget(kind="time", time=self.time),
            RecoveryTarget(kind="lsn", lsn=self.lsn),
            RecoveryTarget(kind="xid", xid=self.xid),
            RecoveryTarget(kind="name", name=self.point),
        ]


def insert(server: Server, rows: int) -> Moment:
    """Add rows in one transaction, and name the moment after it."""
    xid = server.sql(
        f"with made as (insert into t select generate_series(1, {rows}) returning 1)"
        " select pg_current_xact_id() from made limit 1"
    )
    point = f"point-{xid}"
    server.sql(f"select pg_create_restore_point('{point}')")
    found = server.sql("select count(*), clock_timestamp(), pg_current_wal_insert_lsn() from t").split("|")
    server.sql("select pg_logical_emit_message(true, 'test', 'x')")  # a later commit
    return Moment(int(found[0]), datetime.fromisoformat(found[1]), parse_lsn(found[2]), int(xid), point)


def count(server: Server) -> int:
    return int(server.sql("select count(*) from t"))


def system_of(server: Server) -> int:
    return int(server.sql("select system_identifier from pg_control_system()"))


@pytest.mark.parametrize("version", [18, 16])
def test_every_kind_of_target_is_met_exactly(
    repository: Repository, start_server: StartServer, stopping: list[Server], version: int
) -> None:
    server = start_server(version=version, segment_mib=1)
    server.sql("create table t(x int)")
    server.sql("insert into t select generate_series(1, 100)")
    back_up(repository, server)
    middle = insert(server, 1000)
    insert(server, 5000)
    archive(repository, server)
    wanted = [*((target, 1100) for target in middle.targets()), (RecoveryTarget(kind="immediate"), 100), (LATEST, 6100)]
    if version != 18:
        wanted = [wanted[0], wanted[5]]
    for number, (target, rows) in enumerate(wanted):
        copy = recovered(repository, server, f"copy-{number}", target=target)
        stopping.append(copy)
        assert count(copy) == rows, f"{target}"
        assert not (copy.data / "backstay_wal").exists()
        copy.stop()


def test_what_the_server_was_told_of_other_recoveries_does_not_hold(
    repository: Repository, server: Server, stopping: list[Server]
) -> None:
    server.configure(
        "postgresql.auto.conf",
        recovery_target_inclusive="off",
        recovery_min_apply_delay="1h",
        archive_cleanup_command="false",
    )
    server.sql("create table t (x int)")
    back_up(repository, server)
    moment = insert(server, 3)
    insert(server, 4)
    archive(repository, server)
    stopping.append(copy := recovered(repository, server, "copy", target=RecoveryTarget(kind="xid", xid=moment.xid)))
    assert count(copy) == moment.rows
    assert copy.sql("show archive_cleanup_command") == ""


@pytest.mark.long
@pytest.mark.timeout(300 + 20 * TARGETS)
def test_random_targets_meet_what_was_there(
    repository: Repository, start_server: StartServer, stopping: list[Server]
) -> None:
    seed = 20261128
    rng = random.Random(seed)
    server = start_server(segment_mib=1)
    server.sql("create table t(x int)")
    moments: list[Moment] = []
    for number in range(30):
        if number % 10 == 0:
            back_up(repository, server)
        moments.append(insert(server, rng.randrange(1, 4000)))
    archive(repository, server)
    for number in range(TARGETS):
        moment = rng.choice(moments)
        target = rng.choice(moment.targets())
        copy = recovered(repository, server, f"copy-{number}", target=target)
        stopping.append(copy)
        assert count(copy) == moment.rows, f"seed {seed}, number {number}: {target}"
        copy.stop()
        shutil.rmtree(copy.data)


def test_targets_that_cannot_be_met_are_refused_before_anything_is_written(
    repository: Repository, start_server: StartServer, place: Path
) -> None:
    with pytest.raises(NotFound, match="no base backup"):
        plan_recovery(repository, NAME, "latest", LATEST)
    server = start_server(segment_mib=1)
    server.sql("create table t(x int)")
    back_up(repository, server)
    moment = insert(server, 10)
    archive(repository, server)
    future = datetime.now(UTC) + timedelta(days=1)
    for target, said in [
        (RecoveryTarget(kind="time", time=future), "last commit"),
        (RecoveryTarget(kind="time", time=moment.time - timedelta(days=1)), "complete at"),
        (RecoveryTarget(kind="lsn", lsn=moment.lsn + (1 << 30)), "reaches to"),
        (RecoveryTarget(kind="lsn", lsn=1 << 20), "complete at"),
        (RecoveryTarget(kind="xid", xid=moment.xid + 1000), "reaches to"),
        (RecoveryTarget(kind="name", name="nobody made it"), "reaches to"),
    ]:
        with pytest.raises(TargetNotCovered) as caught:
            plan_recovery(repository, NAME, "latest", target)
        assert said in caught.value.cause
        assert "covered" in caught.value.title
        assert isinstance(caught.value, TargetBeforeSnapshot) == (said == "complete at")
    with pytest.raises(NotFound, match="timeline 7"):
        plan_recovery(repository, NAME, "latest", RecoveryTarget(timeline=7))
    with pytest.raises((NotFound, InvalidRequest)):
        plan_recovery(repository, NAME, "01zzzzzz", LATEST)


@pytest.mark.long
def test_wal_that_is_missing_or_damaged_is_told_whichever_it_is(
    repository: Repository, start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(segment_mib=1, shared_buffers="64MB")
    server.sql("create table t(x int)")
    back_up(repository, server)
    early = insert(server, 10)
    for _ in range(52):  # each of them fills a segment
        server.sql("insert into t select generate_series(1, 100); select pg_switch_wal()")
    archive(repository, server)
    system, backend = system_of(server), repository.backend
    plan = plan_recovery(repository, NAME, "latest", LATEST)
    assert len(plan.segments) > 50
    for number, segment in enumerate(plan.segments):
        name = wal_name(system, segment.name)
        whole = backend.retrieve(name)
        backend.delete(name)
        if number < len(plan.segments) - 1:
            with pytest.raises(WalGap) as gap:
                plan_recovery(repository, NAME, "latest", LATEST)
            assert segment.name in gap.value.cause
        else:  # nothing says that there was more
            assert len(plan_recovery(repository, NAME, "latest", LATEST).segments) == number
        if number > 5:  # a target in front of the hole
            assert plan_recovery(repository, NAME, "latest", RecoveryTarget(kind="lsn", lsn=early.lsn)).segments
        damaged = bytearray(whole)
        damaged[len(damaged) // 2] ^= 1
        backend.store(name, bytes(damaged))
        with pytest.raises(CorruptedBackup):
            restore_cluster(repository, plan, tmp_path / f"copy-{number}")
        assert not (tmp_path / f"copy-{number}" / "global" / "pg_control").exists()
        backend.store(name, whole, overwrite=True)


def test_a_server_stops_when_staged_wal_is_gone(
    repository: Repository, start_server: StartServer, stopping: list[Server]
) -> None:
    server = start_server(segment_mib=1)
    server.sql("create table t(x int)")
    back_up(repository, server)
    for _ in range(4):
        server.sql("insert into t select generate_series(1, 100); select pg_switch_wal()")
    archive(repository, server)
    copy = restored(repository, server, "copy")
    stopping.append(copy)
    segments = sorted(path for path in (copy.data / "backstay_wal").iterdir() if is_segment(path.name))
    segments[len(segments) // 2].unlink()
    copy.configure("postgresql.auto.conf", port=copy.port)
    started = copy.tool("pg_ctl", "-D", copy.data, "-l", copy.log_file, "-t", "60", "-w", "start", check=False)
    assert started.returncode != 0 or copy.sql("select pg_is_in_recovery()", check=False) != "f"
    assert "could not restore file" in copy.log()
    assert "archive recovery complete" not in copy.log()


def test_recovery_goes_through_a_fork_or_along_the_first_timeline(
    repository: Repository, start_server: StartServer, stopping: list[Server]
) -> None:
    server = start_server(segment_mib=1)
    server.sql("create table t(x int)")
    back_up(repository, server)
    fork = insert(server, 100)
    insert(server, 1000)  # is not on the second timeline
    archive(repository, server)
    server.stop("fast")
    second = recovered(repository, server, "second", target=RecoveryTarget(kind="lsn", lsn=fork.lsn))
    stopping.append(second)
    after = insert(second, 7)
    insert(second, 70)
    archive(repository, second)
    second.stop("fast")
    for number, (target, rows) in enumerate(
        [(LATEST, 177), (RecoveryTarget(kind="time", time=after.time), 107), (RecoveryTarget(timeline=1), 1100)]
    ):
        copy = recovered(repository, server, f"copy-{number}", target=target)
        stopping.append(copy)
        assert count(copy) == rows, f"{target}"
        copy.stop()
    assert not plan_recovery(repository, NAME, "latest", LATEST).others
    server.start()  # the second one was only a test, and archived
    later = insert(server, 1)
    archive(repository, server)
    (other,) = plan_recovery(repository, NAME, "latest", LATEST).others
    assert (other.timeline, other.last_commit > later.time) == (1, True)
    assert not plan_recovery(repository, NAME, "latest", RecoveryTarget(timeline=1)).others
    for either in (RecoveryTarget(kind="time", time=after.time), RecoveryTarget(kind="lsn", lsn=after.lsn)):
        with pytest.raises(TargetAmbiguousTimeline, match="timeline 2 and on timeline 1") as caught:
            plan_recovery(repository, NAME, "latest", either)
        assert "--timeline 1" in caught.value.hint
        for timeline in (1, 2):
            plan = plan_recovery(repository, NAME, "latest", replace(either, timeline=timeline))
            assert plan.path.timeline == timeline
    for shared in (RecoveryTarget(kind="lsn", lsn=fork.lsn), RecoveryTarget(kind="time", time=fork.time)):
        assert plan_recovery(repository, NAME, "latest", shared).path.timeline == 2
