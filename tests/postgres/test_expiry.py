"""Expiry removes exactly the WAL that no base backup and no recovery within the window needs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from backstay.errors import NotFound, WalGap
from backstay.operations.clusters.plan import RecoveryTarget, plan_recovery
from backstay.operations.retention.prune import execute_prune, plan_prune
from backstay.operations.retention.rules import RetentionRules
from backstay.operations.wal.expire import expire_wal, plan_expiry
from backstay.repository.repository import Repository
from backstay.sources.postgres.lsn import is_segment, parse_lsn, segment_start
from tests.postgres.conftest import StartServer
from tests.postgres.recovering import NAME, archive, back_up, recovered
from tests.postgres.servers import Server

MIB = 1 << 20


def fill(server: Server, segments: int) -> None:
    for _ in range(segments):
        server.sql("insert into t select generate_series(1, 100); select pg_switch_wal()")


def stored(repository: Repository, system: int) -> list[str]:
    return [file for file in repository.wal.files(system) if is_segment(file)]


def test_what_lies_before_the_first_needed_base_backup_goes(
    repository: Repository, start_server: StartServer, stopping: list[Server]
) -> None:
    server = start_server(segment_mib=1)
    server.sql("create table t(x int)")
    with pytest.raises(NotFound, match="no base backup"):
        plan_expiry(repository, NAME)
    fill(server, 3)
    first = back_up(repository, server)
    fill(server, 4)
    second = back_up(repository, server)
    fill(server, 3)
    archive(repository, server)
    before = stored(repository, first.system_id)
    plan = plan_expiry(repository, NAME)
    start = parse_lsn(first.start_lsn)
    assert list(plan.expired) == [file for file in before if segment_start(file, MIB) + MIB <= start]
    assert plan.expired
    expire_wal(repository, plan)
    assert stored(repository, first.system_id) == [file for file in before if file not in plan.expired]
    assert not plan_expiry(repository, NAME).expired
    # Everything that could be reached from a base backup still can.
    copy = recovered(repository, server, "copy", snapshot=first.snapshot)
    stopping.append(copy)
    assert copy.sql("select count(*) from t") == "1000"
    copy.stop()

    assert plan_expiry(repository, NAME, window=timedelta(days=14)).since == first.snapshot
    window = datetime.now().astimezone() - datetime.fromisoformat(second.stop_time)
    plan = plan_expiry(repository, NAME, window=max(timedelta(0), window - timedelta(seconds=0.2)))
    assert plan.since == second.snapshot
    expire_wal(repository, plan)
    # The older one is still consistent, and says that nothing behind it can be reached.
    target = RecoveryTarget(kind="immediate")
    assert plan_recovery(repository, NAME, first.snapshot, target).segments
    with pytest.raises(WalGap):
        plan_recovery(repository, NAME, first.snapshot, RecoveryTarget())
    assert plan_recovery(repository, NAME, second.snapshot, RecoveryTarget()).segments


def test_a_server_that_was_recovered_to_before_its_last_base_backup_can_be_recovered_again(
    repository: Repository, start_server: StartServer, stopping: list[Server]
) -> None:
    server = start_server(segment_mib=1)
    server.sql("create table t(x int)")
    first = back_up(repository, server)
    fill(server, 2)
    server.sql("select pg_create_restore_point('before')")
    server.sql("delete from t")
    fill(server, 2)
    back_up(repository, server)
    archive(repository, server)
    server.stop("fast")
    target = RecoveryTarget(kind="name", name="before")
    second = recovered(repository, server, "second", snapshot=first.snapshot, target=target)
    stopping.append(second)
    fill(second, 3)
    archive(repository, second)
    second.stop("fast")
    now = datetime.now(UTC)
    last = plan_prune(repository, RetentionRules(keep_last=1), now=now, zone=UTC, wal_window=timedelta(0))
    assert not last.dropped
    assert execute_prune(repository, last).wal[0].removed
    copy = recovered(repository, server, "copy")
    stopping.append(copy)
    assert copy.sql("select count(*) from t") == "500"
