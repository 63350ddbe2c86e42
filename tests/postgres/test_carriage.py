"""A cluster is recovered from another repository, to which its base backup was copied."""

from __future__ import annotations

from datetime import datetime

from backstay.operations.clusters.plan import RecoveryTarget
from backstay.operations.copies.transfer import copy_snapshots
from backstay.operations.wal.windows import covered
from backstay.repository.repository import Repository
from backstay.storage.memory import MemoryStorage
from backstay.trust.secrets import Secret
from tests.postgres.conftest import StartServer
from tests.postgres.recovering import archive, back_up, recovered
from tests.postgres.servers import Server


def test_a_copy_recovers_to_the_same_moment(
    repository: Repository, start_server: StartServer, stopping: list[Server]
) -> None:
    server = start_server(segment_mib=1)
    server.sql("create table t(x int); insert into t select generate_series(1, 1000)")
    back_up(repository, server)
    server.sql("insert into t select generate_series(1, 500)")
    moment = datetime.fromisoformat(server.sql("select clock_timestamp()"))
    server.sql("delete from t")
    archive(repository, server)
    with Repository.create(MemoryStorage(), Secret.new_keyfile()) as other:
        result = copy_snapshots(repository, other, repository.snapshots.live())
        assert result.wal_files > 0
        here, there = covered(repository), covered(other)
        assert [(w.end_lsn, w.end_time) for w in here] == [(w.end_lsn, w.end_time) for w in there]
        copy = recovered(other, server, "copy", target=RecoveryTarget(kind="time", time=moment))
        stopping.append(copy)
        assert copy.sql("select count(*) from t") == "1500"
