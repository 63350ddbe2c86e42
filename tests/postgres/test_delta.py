"""A restore onto an older data directory takes what is right there, and nothing that is not."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from backstay.core.events import Event, Progress, Started
from backstay.errors import Interrupted, RestoreConflict
from backstay.operations.clusters.plan import RecoveryPlan, RecoveryTarget, plan_recovery
from backstay.operations.clusters.restore import (
    ClusterRestoreOptions,
    ClusterRestoreResult,
    DeltaOptions,
    restore_cluster,
)
from backstay.repository.repository import Repository
from tests.postgres.conftest import StartServer
from tests.postgres.recovering import NAME, archive, back_up
from tests.postgres.servers import Server

DELTA = ClusterRestoreOptions(delta=DeltaOptions())
IN_PLACE = ClusterRestoreOptions(delta=DeltaOptions(tablespaces_in_place=True))


@dataclass
class Older:
    """A stopped server whose directory has gone on since its base backup, and the plan that leads to 1500 rows."""

    server: Server
    plan: RecoveryPlan

    @property
    def data(self) -> Path:
        return self.server.data

    def table(self, name: str = "t") -> Path:
        return self.data / self.files[name]

    files: dict[str, str]


@pytest.fixture
def older(repository: Repository, start_server: StartServer) -> Older:
    server = start_server(segment_mib=1)
    server.sql("create table t as select generate_series(1, 1000) x")
    server.sql("create table still as select n, md5(n::text) v from generate_series(1, 20000) n; checkpoint")
    files = {name: server.sql(f"select pg_relation_filepath('{name}')") for name in ("t", "still")}
    back_up(repository, server)
    server.sql("insert into t select generate_series(1, 500)")
    archive(repository, server)
    server.sql("insert into t select generate_series(1, 9000); create table later as select 1")
    server.stop("fast")
    return Older(server, plan_recovery(repository, NAME, "latest", RecoveryTarget()), files)


def recovered_rows(server: Server) -> str:
    """What is there after recovery; all files of the backup were checked before."""
    server.own(server.data)
    verified = server.tool("pg_verifybackup", "-n", "-i", "backstay_wal", server.data, check=False)
    assert verified.returncode == 0, verified.stderr
    server.start()
    server.wait_until_promoted()
    return server.sql("select (select count(*) from t), (select count(*) from still), to_regclass('later') is null")


def restore(
    repository: Repository, older: Older, options: ClusterRestoreOptions = DELTA, place: Path | None = None
) -> ClusterRestoreResult:
    return restore_cluster(repository, older.plan, place or older.data, options)


def test_what_is_equal_stays_and_what_differs_or_does_not_belong_goes(repository: Repository, older: Older) -> None:
    still, inode = older.table("still"), older.table("still").stat().st_ino
    info = still.stat()
    with still.open("r+b") as file:  # as a disk does it: the size and the time stay
        file.seek(40_000)
        file.write(b"damage")
    os.utime(still, ns=(info.st_atime_ns, info.st_mtime_ns))
    linked = older.data / "base" / "1" / "PG_VERSION"
    other = older.data.with_name("snapshot")
    os.link(linked, other)
    linked.write_bytes(b"changed")
    (older.data / "base" / "stranger").mkdir()
    (older.data / "base" / "stranger" / "file").touch()
    (older.data / "log").symlink_to(older.data.parent)
    result = restore(repository, older)
    assert result.bytes_kept > result.bytes * 0.9
    assert still.stat().st_ino == inode
    assert other.read_bytes() == b"changed"  # belongs to somebody else
    assert not (older.data / "base" / "stranger").exists()
    assert not os.path.lexists(older.data / "log")
    assert any("log was a link" in problem for problem in result.problems)
    assert not (older.data / "backstay_restore").exists()
    assert recovered_rows(older.server) == "1500|20000|t"


def test_directories_that_must_not_be_touched_are_refused(
    repository: Repository, older: Older, start_server: StartServer, place: Path
) -> None:
    control = (older.data / "global" / "pg_control").read_bytes()
    (older.data / "postmaster.pid").write_text("1\n")
    with pytest.raises(RestoreConflict, match="belongs to a server"):
        restore(repository, older)
    (older.data / "postmaster.pid").unlink()
    home = place / "home"
    (home / "photos").mkdir(parents=True)
    with pytest.raises(RestoreConflict, match="no data directory"):
        restore(repository, older, ClusterRestoreOptions(delta=DeltaOptions(other_cluster=True)), home)
    assert (home / "photos").exists()
    other = start_server("other")
    other.stop("fast")
    with pytest.raises(RestoreConflict, match="not of this cluster"):
        restore(repository, older, DELTA, other.data)
    assert (other.data / "global" / "pg_control").exists()
    (older.data / "global" / "pg_control").write_bytes(control[:4])
    with pytest.raises(RestoreConflict, match="not of this cluster"):
        restore(repository, older)
    restore(repository, older, ClusterRestoreOptions(delta=DeltaOptions(other_cluster=True)), other.data)
    other.configure("postgresql.auto.conf", port=other.port)
    assert recovered_rows(other) == "1500|20000|t"


@pytest.mark.parametrize(("stage", "fresh"), [("compare", False), ("stage the WAL", False), ("restore", True)])
def test_a_restore_that_was_cut_short_never_starts_and_is_begun_again(
    repository: Repository, older: Older, place: Path, stage: str, fresh: bool
) -> None:
    server = Server(place, name="fresh") if fresh else older.server
    options = ClusterRestoreOptions() if fresh else DELTA
    begun = [False]

    def stop(event: Event) -> None:
        begun[0] = begun[0] or (isinstance(event, Started) and event.operation == stage)
        if begun[0] and isinstance(event, Progress):
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        restore_cluster(repository, older.plan, server.data, options, events=stop)
    server.own(server.data)
    started = server.tool("pg_ctl", "-D", server.data, "-l", server.log_file, "-w", "start", check=False)
    assert started.returncode != 0
    if fresh:
        with pytest.raises(RestoreConflict, match="not finished"):
            restore_cluster(repository, older.plan, server.data, options)
    restore_cluster(repository, older.plan, server.data, DELTA)
    server.configure("postgresql.auto.conf", port=server.port)
    assert recovered_rows(server) == "1500|20000|t"
    server.stop()


def test_tablespaces_are_followed_only_when_they_are_known_to_be_its_own(
    repository: Repository, start_server: StartServer, place: Path, stopping: list[Server]
) -> None:
    server = start_server(segment_mib=1)
    space = place / "space"
    space.mkdir()
    server.own(space)
    server.sql(f"create tablespace other location '{space}'")
    server.sql("create table t tablespace other as select generate_series(1, 1000) x; create table still as select 1 x")
    back_up(repository, server)
    archive(repository, server)
    server.sql("checkpoint")
    copy = Server(place, name="copy")
    stopping.append(copy)
    shutil.copytree(server.data, copy.data, symlinks=True)
    (copy.data / "postmaster.pid").unlink()
    plan = plan_recovery(repository, NAME, "latest", RecoveryTarget())
    with pytest.raises(RestoreConflict, match="lies in") as caught:
        restore_cluster(repository, plan, copy.data, DELTA)
    assert "--tablespaces-in-place" in caught.value.hint
    with pytest.raises(RestoreConflict, match="in use by a running server"):
        restore_cluster(repository, plan, copy.data, IN_PLACE)
    assert server.sql("select count(*) from t") == "1000"
    moved = ClusterRestoreOptions(tablespaces=place / "moved", delta=DeltaOptions())
    (oid,) = plan.base.tablespaces
    foreign = place / "moved" / str(oid) / "foreign"
    foreign.parent.mkdir(parents=True)
    foreign.touch()
    with pytest.raises(RestoreConflict, match="is not empty"):
        restore_cluster(repository, plan, copy.data, moved)
    foreign.unlink()
    result = restore_cluster(repository, plan, copy.data, moved)
    assert any("was left alone" in problem for problem in result.problems)
    copy.own(place / "moved")
    copy.configure("postgresql.auto.conf", port=copy.port)
    assert recovered_rows(copy) == "1000|1|t"
    assert server.sql("select count(*) from t") == "1000"
    copy.stop("fast")
    server.stop("fast")
    (space / "PG_9.6_1").mkdir()  # of another server, before an upgrade
    result = restore_cluster(repository, plan, server.data, IN_PLACE)
    assert result.tablespaces == (space,)
    assert not [problem for problem in result.problems if "left alone" in problem]
    assert result.bytes_kept > result.bytes * 0.9
    assert (space / "PG_9.6_1").exists()
    server.own(space)
    assert recovered_rows(server) == "1000|1|t"
