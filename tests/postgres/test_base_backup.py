"""Base backups of real servers: whole, or of what changed; each snapshot restores alone."""

from __future__ import annotations

import subprocess
import time
from datetime import UTC
from pathlib import Path

import pytest

from backstay.core.events import Event, Warned
from backstay.errors import (
    BackstayError,
    ChecksumFailure,
    IdentityMismatch,
    Interrupted,
    ReplicationDenied,
    RestoreConflict,
    SourceUnreachable,
)
from backstay.operations.clusters import backup
from backstay.operations.clusters.backup import ClusterBackupOptions, TablespaceMadeMeanwhile, back_up_cluster
from backstay.operations.clusters.files import ClusterFiles
from backstay.operations.clusters.plan import RecoveryTarget, plan_recovery
from backstay.operations.clusters.restore import restore_cluster
from backstay.operations.clusters.status import pg_status
from backstay.operations.repair.run import repair_packs, repair_snapshots
from backstay.operations.retention.prune import plan_prune
from backstay.operations.retention.rules import RetentionRules
from backstay.operations.tiers.moving import plan_move, run_move, set_tier
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.operations.wal.bases import base_backups
from backstay.repository.blobs.contents import chunk_ids
from backstay.repository.collection.segments import indexed_packs
from backstay.repository.format import RecordKind, pack_name
from backstay.repository.repository import Repository
from backstay.repository.trees.listings import find_node
from backstay.sources.postgres.tar_stream import Sink
from backstay.storage.local import LocalStorage
from tests.operations.copies import SECRET
from tests.operations.segments import split_by_kind
from tests.ports import free_port
from tests.postgres.conftest import StartServer
from tests.postgres.receivers import Archive
from tests.postgres.recovering import back_up, recovered, restored
from tests.postgres.servers import Server

OPTIONS = ClusterBackupOptions(name="main", host="here")


def state(server: Server) -> str:
    return server.sql("select count(*), sum(hashtext(v)) from t") + "|" + server.sql("select count(*) from u")


def fill(server: Server) -> None:
    server.sql("create table t as select i id, md5(i::text) v from generate_series(1, 60000) i")
    server.sql("create table u(x int); insert into u select generate_series(1, 20000)")
    server.sql("vacuum")


@pytest.mark.parametrize("version", [18, 16])
def test_each_base_backup_restores_alone(
    repository: Repository, start_server: StartServer, stopping: list[Server], version: int
) -> None:
    server = start_server(version=version)
    fill(server)
    results, states = [back_up(repository, server)], [state(server)]
    server.sql(
        "update t set v = md5(v) where id % 3000 = 7; insert into t select i, 'new' from generate_series(1, 3000) i"
    )
    server.sql("truncate u; create table w as select 1 x")
    results.append(back_up(repository, server))
    states.append(state(server))
    server.sql("delete from t where id > 30000; insert into u values (7)")
    server.sql("vacuum t")  # which makes it shorter
    results.append(back_up(repository, server))
    states.append(state(server))
    kinds = [result.kind for result in results]
    assert kinds == (["full", "incremental", "incremental"] if version >= 17 else ["full"] * 3)
    assert results[1].bytes_added < results[0].bytes_added / 2
    if version >= 17:
        assert results[2].bytes_received < results[0].bytes_received / 3
    else:
        assert "cannot tell" in results[2].reason
    for result, expected in zip(results, states, strict=True):
        target = RecoveryTarget(kind="immediate")
        copy = recovered(repository, server, f"copy-{result.snapshot}", snapshot=result.snapshot, target=target)
        stopping.append(copy)
        assert state(copy) == expected
        if version == 18:  # the other installation has no amcheck
            where = ("-h", "127.0.0.1", "-p", copy.port, "-U", "postgres", "-d", "postgres")
            copy.tool("pg_amcheck", *where, "--install-missing", "--heapallindexed")
        copy.stop()
    report = run_verify(repository, options=VerifyOptions(read_data=1))
    assert report.ok


def checked_by_server(copy: Server) -> bool:
    """Whether most files of a restored server are checked by what the server of the backup had read."""
    data = (copy.data / "backup_manifest").read_text()
    copy.tool("pg_verifybackup", "-n", "-i", "backstay_wal", copy.data)
    return data.count('"CRC32C"') > data.count('"SHA256"') > 0


def test_tablespaces_never_go_where_they_lay(repository: Repository, server: Server, stopping: list[Server]) -> None:
    space = server.place / "space"
    space.mkdir()
    server.own(space)
    server.sql(f"create tablespace other location '{space}'")
    server.sql("create table u tablespace other as select generate_series(1, 1000) x; create table t(id int, v text)")
    whole = back_up(repository, server).snapshot
    server.sql("insert into u values (7)")
    result = back_up(repository, server)
    assert result.kind == "incremental"
    for snapshot, by_server in ((whole, True), (result.snapshot, False)):
        target = RecoveryTarget(kind="immediate")
        made = restored(repository, server, snapshot, snapshot=snapshot, target=target)
        assert checked_by_server(made) == by_server
    before = sorted(path.stat().st_mtime_ns for path in space.rglob("*"))
    copy = recovered(repository, server, "copy")
    stopping.append(copy)
    assert copy.sql("select count(*) from u") == "1001"
    place = copy.sql("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'other'")
    assert Path(place).parent == copy.data.with_name("copy.tablespaces")
    assert sorted(path.stat().st_mtime_ns for path in space.rglob("*")) == before


def test_a_server_without_summaries_sends_everything(repository: Repository, start_server: StartServer) -> None:
    server = start_server(summarize_wal="off")
    fill(server)
    back_up(repository, server)
    result = back_up(repository, server)
    assert result.kind == "full"
    assert result.reason == "summarize_wal is off"
    assert result.bytes_added < 3 << 20  # what was stored already is not stored again


def test_a_server_that_lost_its_summaries_sends_everything(repository: Repository, server: Server) -> None:
    fill(server)
    back_up(repository, server)
    server.stop("fast")
    for file in (server.data / "pg_wal" / "summaries").iterdir():
        file.unlink()
    server.configure("postgresql.conf", summarize_wal="off")
    server.start()
    server.sql("create table x as select 1; select pg_switch_wal()")
    server.sql("checkpoint")
    server.stop("fast")
    server.configure("postgresql.conf", summarize_wal="on")
    server.start()
    warnings: list[str] = []

    def sink(event: Event) -> None:
        if isinstance(event, Warned):
            warnings.append(event.message)

    result = back_up_cluster(repository, server.url, OPTIONS, events=sink)
    assert (result.kind == "full") == bool(warnings)
    assert plan_recovery(repository, "main", result.snapshot, RecoveryTarget()).segments


def test_who_asks_to_stop_when_the_base_backup_is_made_gets_it(repository: Repository, server: Server) -> None:
    def stop(event: Event) -> None:
        if repository.snapshots.live():
            raise Interrupted("interrupted")

    result = back_up_cluster(repository, server.url, OPTIONS, events=stop)
    assert [one.id for one in repository.snapshots.live()] == [result.snapshot]


@pytest.mark.parametrize("lost", ["packs", "segment"])
def test_a_lost_parent_makes_a_full_one(repository: Repository, server: Server, lost: str) -> None:
    fill(server)
    first = back_up(repository, server)
    if lost == "segment":
        repository.backend.delete(split_by_kind(repository)[RecordKind.DATA_PACK])
    for info in list(repository.backend.list("packs/")) if lost == "packs" else ():
        repository.backend.delete(info.name)
    result = back_up(repository, server)
    assert result.kind == "full"
    assert "can be built upon" in result.reason
    assert result.parent is None
    assert result.bytes_added > first.bytes_added / 2


def test_another_cluster_under_the_same_name_is_refused(repository: Repository, start_server: StartServer) -> None:
    one = start_server("one")
    back_up(repository, one)
    one.stop()
    two = start_server("two")
    with pytest.raises(IdentityMismatch, match="main"):
        back_up(repository, two)
    assert len(base_backups(repository, "main")) == 1


def test_a_running_or_filled_directory_is_left_alone(repository: Repository, server: Server, tmp_path: Path) -> None:
    back_up(repository, server)
    plan = plan_recovery(repository, "main", "latest", RecoveryTarget())
    with pytest.raises(RestoreConflict) as caught:
        restore_cluster(repository, plan, server.data)
    assert "server runs" in caught.value.cause
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "mine").touch()
    with pytest.raises(RestoreConflict):
        restore_cluster(repository, plan, tmp_path / "filled")
    assert server.sql("select 1") == "1"


def test_a_damaged_pack_leaves_a_directory_that_does_not_start(
    repository: Repository, server: Server, tmp_path: Path
) -> None:
    fill(server)
    back_up(repository, server)
    plan = plan_recovery(repository, "main", "latest", RecoveryTarget())
    largest = max(repository.backend.list("packs/"), key=lambda info: info.size)
    data = bytearray(repository.backend.retrieve(largest.name))
    data[len(data) // 3] ^= 1
    repository.backend.store(largest.name, bytes(data), overwrite=True)
    with pytest.raises(BackstayError):
        restore_cluster(repository, plan, tmp_path / "copy")
    assert not (tmp_path / "copy" / "global" / "pg_control").exists()


def test_who_may_not_or_is_not_there_is_told(repository: Repository, server: Server) -> None:
    with pytest.raises(SourceUnreachable):
        back_up_cluster(repository, f"postgresql://postgres@127.0.0.1:{free_port()}/x", OPTIONS)
    server.sql("create role watcher login")
    with pytest.raises(ReplicationDenied):
        back_up_cluster(repository, server.url.replace("postgres@", "watcher@"), OPTIONS)
    assert not base_backups(repository, "main")


def test_a_backup_that_is_killed_leaves_a_good_repository(archive: Archive, server: Server) -> None:
    fill(server)
    until = time.monotonic() + 60
    for _ in range(3):
        with subprocess.Popen(**archive.command("pg", "backup", server.url, "--name", "main")) as process:
            while not server.sql("select 1 from pg_stat_progress_basebackup") and process.poll() is None:
                assert time.monotonic() < until
            process.kill()
    with archive.open() as repository:
        assert run_verify(repository, options=VerifyOptions(read_data=1)).ok
        result = back_up(repository, server)
        assert plan_recovery(repository, "main", result.snapshot, RecoveryTarget()).segments
    slots = "select count(*) from pg_replication_slots where slot_name like 'backstay_base%'"
    while server.sql(slots) != "0":  # they go with their connections
        assert time.monotonic() < until


def test_a_damaged_page_marks_a_base_backup_and_is_told_with_its_place(repository: Repository, server: Server) -> None:
    server.sql("create table damaged as select generate_series(1, 1000) i; checkpoint")
    good = back_up(repository, server)
    file = server.sql("select pg_relation_filepath('damaged')")
    server.stop("fast")
    with (server.data / file).open("r+b") as pages:
        pages.seek(8192 + 4000)
        pages.write(b"not what was there")
    server.start()
    whole = ClusterBackupOptions(name="main", host="here", full=True)
    with pytest.raises(ChecksumFailure, match="damaged pages") as caught:
        back_up_cluster(repository, server.url, whole)
    assert f"{file}" in caught.value.cause
    assert "block 1" in caught.value.cause
    marked = repository.snapshots.live()[-1]
    assert (marked.tags, marked.previous) == (("damaged",), good.snapshot)
    assert f"{file}" in marked.consistency["damaged"]
    server.sql("select pg_switch_wal()")
    assert plan_recovery(repository, "main", "latest", RecoveryTarget(kind="immediate")).base.snapshot == good.snapshot
    named = plan_recovery(repository, "main", marked.id, RecoveryTarget(kind="immediate"))
    assert named.base.damage
    assert any("damaged pages" in problem for problem in pg_status(repository, "main").problems)
    rules = RetentionRules(keep_last=1)
    plan = plan_prune(repository, rules, now=repository.clock.now(), zone=UTC)
    assert {kept.candidate.id for kept in plan.kept} == {good.snapshot, marked.id}
    later = back_up(repository, server)
    assert later.parent == good.snapshot
    for sound in (good, later):
        repository.snapshots.drop(sound.snapshot, "for a test", repository.clock)
    with pytest.raises(ChecksumFailure, match="all base backups"):
        plan_recovery(repository, "main", "latest", RecoveryTarget(kind="immediate"))
    assert "there is no whole base backup: nothing can be recovered" in pg_status(repository, "main").problems


def harm(repository: Repository, path: bytes, snapshot: str, number: int) -> None:
    """Change a byte of what a chunk of a file is stored in."""
    node = find_node(repository.snapshots.get(snapshot).root, path, repository.reader)
    assert node is not None
    assert node.content is not None
    place = repository.reader.place([*chunk_ids(node.content, repository.reader)][number])
    [pack] = [pack for pack in indexed_packs(repository) if pack.digest == repository.index.pack(place.pack).digest]
    blob = next(blob for blob in pack.table.blobs() if blob.ordinal == place.ordinal)
    name = pack_name(RecordKind(pack.kind), pack.digest)
    data = bytearray(repository.backend.retrieve(name))
    data[blob.offset + blob.stored // 2] ^= 1
    repository.backend.store(name, bytes(data), overwrite=True)
    repository.release()


def test_an_earlier_base_backup_that_turns_out_to_be_damaged_is_done_without(
    repository: Repository, server: Server
) -> None:
    fill(server)
    first = back_up(repository, server)
    file = b"/data/" + server.sql("select pg_relation_filepath('t')").encode()
    harm(repository, file, first.snapshot, 3)
    server.sql("update t set v = 'new' where ctid = '(13,1)'; checkpoint")  # one of the four blocks of that chunk
    second = back_up(repository, server)
    assert (second.kind, second.parent) == ("full", None)
    assert "cannot be used" in second.reason
    assert "damaged" in second.reason
    restored(repository, server, "copy", snapshot=second.snapshot, target=RecoveryTarget(kind="immediate"))


def test_a_base_backup_that_a_repair_left_files_out_of_is_nothing_to_build_upon(
    repository: Repository, server: Server
) -> None:
    fill(server)
    good = back_up(repository, server)
    server.sql("create table lost as select i, md5(i::text) v from generate_series(1, 20000) i; checkpoint")
    file = b"/data/" + server.sql("select pg_relation_filepath('lost')").encode()
    harm(repository, file, back_up(repository, server).snapshot, 3)
    repair_packs(repository)
    repair_snapshots(repository)
    repaired = repository.snapshots.live()[-1]
    assert repaired.tags == ("repaired",)
    server.sql("select pg_switch_wal()")
    assert plan_recovery(repository, "main", "latest", RecoveryTarget(kind="immediate")).base.snapshot == good.snapshot
    named = plan_recovery(repository, "main", repaired.id, RecoveryTarget(kind="immediate"))
    assert "lacks files" in named.base.damage
    assert any("lacks files" in problem for problem in pg_status(repository, "main").problems)
    plan = plan_prune(repository, RetentionRules(keep_last=1), now=repository.clock.now(), zone=UTC)
    assert good.snapshot in {kept.candidate.id for kept in plan.kept}
    server.sql("update lost set v = 'new' where i = 7; checkpoint")
    assert back_up(repository, server).parent == good.snapshot


def test_a_base_backup_is_made_while_the_cold_tier_with_the_earlier_one_is_away(server: Server, tmp_path: Path) -> None:
    fill(server)
    place, cold = LocalStorage(tmp_path / "place"), tmp_path / "cold"
    with Repository.create(place, SECRET) as repository:
        set_tier(repository, str(cold), 0)
    with Repository.open(place, SECRET) as repository:
        back_up(repository, server)
        run_move(repository, plan_move(repository))
    cold.rename(tmp_path / "drawer")
    with Repository.open(place, SECRET) as repository:
        result = back_up(repository, server)
        assert result.kind == "full"
        assert "not attached" in result.reason


def test_a_base_backup_during_which_a_tablespace_was_made_is_made_once_more(
    repository: Repository, server: Server, stopping: list[Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    spaces = [server.place / f"space{number}" for number in range(3)]
    for space in spaces:
        space.mkdir()
        server.own(space)
    left = list(spaces[:1])
    archive = ClusterFiles.archive

    def archive_beside(files: ClusterFiles, tablespace: int | None) -> Sink:
        if tablespace is None and left:  # the server is about to send far more than sockets hold
            space = left.pop()
            server.sql(f"create tablespace {space.name} location '{space}'")
            server.sql(f"create table of_{space.name} tablespace {space.name} as select generate_series(1, 1000) x")
        return archive(files, tablespace)

    monkeypatch.setattr(ClusterFiles, "archive", archive_beside)
    told: list[Event] = []
    made = back_up_cluster(repository, server.url, OPTIONS, events=told.append)
    (warned,) = [event.message for event in told if isinstance(event, Warned) and "once more" in event.message]
    assert str(spaces[0]) in warned
    assert [base.snapshot for base in base_backups(repository)] == [made.snapshot]
    copy = recovered(repository, server, "copy", target=RecoveryTarget(kind="immediate"))
    stopping.append(copy)
    assert copy.sql("select count(*) from of_space0") == "1000"
    left += spaces[1:]
    monkeypatch.setattr(backup, "_TRIES", 2)
    with pytest.raises(TablespaceMadeMeanwhile, match="could not be recovered"):
        back_up(repository, server, full=True)
    assert [base.snapshot for base in base_backups(repository)] == [made.snapshot]
