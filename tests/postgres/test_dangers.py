"""Ways in which WAL was lost, and servers were harmed, by programs that meant well."""

from __future__ import annotations

import shutil
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from backstay.core.events import Event, Warned
from backstay.errors import CorruptedBackup, RestoreConflict, SourceRefused, TargetNotCovered
from backstay.operations.clusters.backup import ClusterBackupOptions, back_up_cluster
from backstay.operations.clusters.files import ClusterFiles
from backstay.operations.clusters.plan import RecoveryTarget, plan_recovery
from backstay.operations.clusters.rehearse import RehearsalOptions, rehearse_cluster
from backstay.operations.clusters.restore import ClusterRestoreOptions, require_target, restore_cluster
from backstay.operations.wal.bases import base_backups
from backstay.operations.wal.coverage import WalCoverage
from backstay.operations.wal.expire import expire_wal, plan_expiry
from backstay.operations.wal.windows import covered
from backstay.repository.format import snapshot_name
from backstay.repository.repository import Repository
from backstay.sources.postgres.lsn import parse_lsn
from backstay.sources.postgres.tar_stream import Sink
from backstay.storage.local import LocalStorage
from tests.operations.copies import SECRET
from tests.postgres.conftest import StartServer
from tests.postgres.receivers import Archive, until
from tests.postgres.recovering import NAME, back_up, recovered
from tests.postgres.recovering import archive as archive_wal
from tests.postgres.servers import Server, installation

LATEST = RecoveryTarget()
IMMEDIATE = RecoveryTarget(kind="immediate")


def fill(server: Server, segments: int = 2) -> None:
    for _ in range(segments):
        server.sql("insert into t select generate_series(1, 100); select pg_switch_wal()")


def rows(server: Server) -> int:
    return int(server.sql("select count(*) from t"))


def rehearse(repository: Repository, place: Path, *sql: str) -> bool:
    options = RehearsalOptions(
        scratch=place / "scratch", programs=installation(18) / "bin", assertions=sql, patience_s=60
    )
    return rehearse_cluster(repository, plan_recovery(repository, NAME, "latest", LATEST), options).ok


@pytest.fixture
def server(start_server: StartServer) -> Server:
    server = start_server(segment_mib=1)
    server.sql("create table t(x int)")
    return server


def test_expiry_keeps_the_wal_of_other_names_of_the_cluster(repository: Repository, server: Server) -> None:
    weekly = back_up_cluster(repository, server.url, ClusterBackupOptions(name="weekly", host="here"))
    fill(server, 3)
    back_up(repository, server)
    expire_wal(repository, plan_expiry(repository, NAME))
    assert plan_recovery(repository, "weekly", weekly.snapshot, IMMEDIATE).segments
    expire_wal(repository, plan_expiry(repository, NAME, window=timedelta(0)))
    assert plan_recovery(repository, "weekly", weekly.snapshot, IMMEDIATE).segments


def test_expiry_refuses_when_a_snapshot_cannot_be_read(repository: Repository, server: Server) -> None:
    first = back_up(repository, server)
    fill(server, 3)
    back_up(repository, server)
    name = snapshot_name(first.snapshot)
    data = bytearray(repository.backend.retrieve(name))
    data[len(data) // 2] ^= 1
    repository.backend.store(name, bytes(data), overwrite=True)
    repository.snapshots._known.clear()
    with pytest.raises(CorruptedBackup):
        plan_expiry(repository, NAME)


def test_a_receiver_fills_the_hole_in_front_of_a_base_backup(archive: Archive, server: Server) -> None:
    receiver = archive.receiver(server)
    until = time.monotonic() + 30
    while server.sql("select active from pg_replication_slots where slot_name = 'backstay_main'") != "t":
        assert time.monotonic() < until, archive.log()
        time.sleep(0.1)
    with archive.open() as repository:
        back_up(repository, server)
        receiver.terminate()
        receiver.wait(30)
        fill(server, 4)
        system = back_up(repository, server).system_id  # which stores WAL ahead of the receiver
        receiver = archive.receiver(server)
        server.sql("select pg_switch_wal()")
        until = time.monotonic() + 30
        while len(runs := (coverage := WalCoverage.load(repository.wal, system)).runs(coverage.path(1))) != 1:
            assert time.monotonic() < until, f"{runs}: {archive.log()}"
            time.sleep(0.1)


def test_a_base_backup_of_a_later_timeline_can_be_recovered_by_itself(
    repository: Repository, server: Server, start_server: StartServer, stopping: list[Server], tmp_path: Path
) -> None:
    back_up(repository, server)
    fill(server)
    archive_wal(repository, server)
    server.stop("fast")
    second = recovered(repository, server, "second")
    stopping.append(second)
    with Repository.create(LocalStorage(tmp_path / "other"), SECRET) as other:
        result = back_up(other, second)
        assert result.timeline == 2
        copy = recovered(other, second, "copy")
        stopping.append(copy)
        assert rows(copy) == 200


def test_after_a_recovery_the_new_timeline_is_followed_kept_and_not_used_again(
    repository: Repository, server: Server, stopping: list[Server]
) -> None:
    first = back_up(repository, server)
    fill(server, 1)
    point = server.sql("select pg_create_restore_point('fork')")
    assert point
    fill(server, 5)
    abandoned = back_up(repository, server)
    fill(server, 2)
    archive_wal(repository, server)
    server.stop("fast")
    second = recovered(
        repository, server, "second", snapshot=first.snapshot, target=RecoveryTarget(kind="name", name="fork")
    )
    stopping.append(second)
    fill(second, 1)
    third = back_up(repository, second)
    fill(second, 4)
    archive_wal(repository, second)
    second.stop("fast")
    plan = plan_recovery(repository, NAME, "latest", LATEST)
    assert (plan.base.snapshot, plan.path.timeline) == (third.snapshot, 2)
    repository.snapshots.drop(first.snapshot, "test", repository.clock)
    for window in (None, timedelta(0)):
        expire_wal(repository, plan_expiry(repository, NAME, window=window))
        assert plan_recovery(repository, NAME, "latest", LATEST).end_lsn == plan.end_lsn
    # Along the abandoned timeline: its server takes a number that nobody has.
    other = recovered(
        repository, server, "other", snapshot=abandoned.snapshot, target=RecoveryTarget(kind="immediate", timeline=1)
    )
    stopping.append(other)
    assert other.sql("select timeline_id from pg_control_checkpoint()") == "3"


def test_a_tablespace_that_was_made_behind_the_base_backup_is_made_only_where_nobody_has_it(
    repository: Repository, server: Server, place: Path, stopping: list[Server]
) -> None:
    back_up(repository, server)
    fill(server)
    before = server.sql("select pg_current_wal_insert_lsn()")
    fill(server)
    space = place / "space"
    space.mkdir()
    server.own(space)
    server.sql(f"create tablespace other location '{space}'")
    server.sql("create table u tablespace other as select generate_series(1, 1000) x")
    archive_wal(repository, server)
    plan = plan_recovery(repository, NAME, "latest", LATEST)
    copy = place / "copy"
    with pytest.raises(RestoreConflict, match="tablespace") as caught:
        restore_cluster(repository, plan, copy)
    assert f"{space} again, which holds PG_18" in caught.value.cause
    assert not copy.exists()
    earlier = plan_recovery(repository, NAME, "latest", RecoveryTarget(kind="lsn", lsn=parse_lsn(before)))
    assert require_target(repository, earlier, copy, ClusterRestoreOptions()) == {}
    server.stop()
    shutil.rmtree(space)
    with pytest.raises(RestoreConflict, match="cannot be rehearsed"):
        rehearse(repository, place)
    assert not space.exists()
    # As on a new machine, or when the tablespace was dropped.
    again = recovered(repository, server, "again")
    stopping.append(again)
    assert again.sql("select count(*) from u") == "1000"
    assert again.sql("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'other'") == str(space)


def test_a_tablespace_within_the_data_directory_is_in_nobodys_way(
    repository: Repository, server: Server, place: Path
) -> None:
    back_up(repository, server)
    server.sql("alter system set allow_in_place_tablespaces = on")
    server.sql("select pg_reload_conf()")
    server.sql("create tablespace inside location ''")
    server.sql("create table u tablespace inside as select generate_series(1, 1000) x")
    archive_wal(repository, server)
    assert rehearse(repository, place, "select count(*) = 1000 from u")


def test_a_rehearsal_leaves_what_was_there(repository: Repository, server: Server, place: Path) -> None:
    back_up(repository, server)
    precious = place / "scratch.tablespaces" / "16388" / "file"
    precious.parent.mkdir(parents=True)
    precious.write_text("precious")
    with pytest.raises(RestoreConflict):
        rehearse(repository, place)
    assert precious.read_text() == "precious"


def test_settings_that_name_the_servers_own_places_are_outweighed(
    repository: Repository, server: Server, place: Path
) -> None:
    server.sql("insert into t values (1)")
    server.stop("fast")
    server.configure("postgresql.conf", data_directory=server.data, external_pid_file=place / "pid", hot_standby="on")
    server.start()
    back_up(repository, server)
    server.stop("immediate")
    kept = sorted((path, path.stat().st_mtime_ns) for path in server.data.rglob("*"))
    assert rehearse(repository, place, "select count(*) = 1 from t")
    assert sorted((path, path.stat().st_mtime_ns) for path in server.data.rglob("*")) == kept


def test_a_server_whose_settings_lie_elsewhere_is_warned_about_and_rehearsed(
    repository: Repository, server: Server, place: Path
) -> None:
    server.sql("insert into t values (1)")
    server.stop("fast")
    settings = place / "etc"
    settings.mkdir()
    for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
        (server.data / name).rename(settings / name)
    files = {
        "data_directory": server.data,
        "hba_file": settings / "pg_hba.conf",
        "ident_file": settings / "pg_ident.conf",
    }
    with (settings / "postgresql.conf").open("a") as lines:
        lines.writelines(f"{name} = '{path}'\n" for name, path in files.items())
    server.own(settings)
    server.tool("pg_ctl", "-D", settings, "-l", server.log_file, "-w", "start")
    warnings: list[str] = []

    def sink(event: Event) -> None:
        if isinstance(event, Warned):
            warnings.append(event.message)

    back_up_cluster(repository, server.url, ClusterBackupOptions(name=NAME, host="here"), events=sink)
    assert any("postgresql.conf" in message for message in warnings)
    assert rehearse(repository, place, "select count(*) = 1 from t")


@pytest.fixture
def standby(server: Server, place: Path, stopping: list[Server]) -> Server:
    """One that follows `server`, which holds some rows."""
    fill(server)
    standby = Server(place, name="standby")
    stopping.append(standby)
    where = ("-h", "127.0.0.1", "-p", server.port, "-U", "postgres")
    server.tool("pg_basebackup", *where, "-R", "-c", "fast", "-D", standby.data)
    standby.configure("postgresql.auto.conf", port=standby.port)
    return standby.start()


def test_the_copy_of_a_standby_stands_by_itself(
    repository: Repository, server: Server, standby: Server, stopping: list[Server]
) -> None:
    back_up(repository, standby)
    copy = recovered(repository, standby, "copy")
    stopping.append(copy)
    server.sql("create table later(x int)")
    assert rows(copy) == 200
    assert copy.sql("select pg_is_in_recovery(), to_regclass('later')") == "f|"


def test_a_base_backup_of_a_standby_is_of_the_moment_that_was_replayed(
    repository: Repository, server: Server, standby: Server
) -> None:
    def windows_end() -> datetime | None:
        return covered(repository, NAME)[-1].end_time

    seen = "select pg_last_wal_replay_lsn() >= '{}'"
    server.sql("insert into t values (1)")
    server.sql("checkpoint")
    last = server.sql("select pg_current_wal_flush_lsn()")
    until(lambda: standby.sql(seen.format(last)) == "t", "it is replayed")
    standby.sql("select pg_wal_replay_pause()")
    replayed = datetime.fromisoformat(standby.sql("select pg_last_xact_replay_timestamp()"))
    # Nothing of what follows is replayed, though the standby has it.
    server.sql("select pg_switch_wal()")
    server.sql("insert into t values (2)")
    back_up(repository, standby)
    (base,) = base_backups(repository)
    assert base.stop_time == replayed
    assert base.manifest is not None
    assert datetime.fromisoformat(base.manifest.consistency["stop_time"]) > replayed
    assert windows_end() == base.stop_time


def test_a_server_that_breaks_off_its_backup_says_why(
    repository: Repository, standby: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = ClusterFiles.archive

    def archive_beside(files: ClusterFiles, tablespace: int | None) -> Sink:
        standby.sql("select pg_promote()")  # the server is about to send far more than sockets hold
        return archive(files, tablespace)

    monkeypatch.setattr(ClusterFiles, "archive", archive_beside)
    with pytest.raises(SourceRefused, match="does not do BASE_BACKUP") as caught:
        back_up(repository, standby)
    assert "promoted during online backup" in caught.value.cause


def test_the_very_end_of_the_wal_is_no_position_to_stop_at(repository: Repository, server: Server) -> None:
    back_up(repository, server)
    fill(server)
    archive_wal(repository, server)
    end = plan_recovery(repository, NAME, "latest", LATEST).end_lsn
    with pytest.raises(TargetNotCovered):
        plan_recovery(repository, NAME, "latest", RecoveryTarget(kind="lsn", lsn=end))


def test_damaged_wal_is_named_before_anything_is_written(repository: Repository, server: Server) -> None:
    result = back_up(repository, server)
    fill(server, 3)
    stored = archive_wal(repository, server)
    name = next(info.name for info in repository.backend.list("wal/") if stored[-2] in info.name)
    data = bytearray(repository.backend.retrieve(name))
    data[len(data) // 2] ^= 1
    repository.backend.store(name, bytes(data), overwrite=True)
    with pytest.raises(CorruptedBackup, match=stored[-2]):
        plan_recovery(repository, NAME, result.snapshot, LATEST)
