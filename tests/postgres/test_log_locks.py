"""The locks of the WAL that recoveries of a real cluster read are extended, and those of no other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from backstay.operations.clusters.plan import RecoveryTarget, plan_recovery
from backstay.operations.locks.extend import plan_extension, run_extension
from backstay.operations.retention.logs import needed_logs
from backstay.repository.format import wal_name
from backstay.repository.repository import Environment, Repository
from backstay.testing import FakeClock, LockedStorage
from tests.operations.copies import SECRET
from tests.postgres.conftest import StartServer
from tests.postgres.receivers import system_of
from tests.postgres.recovering import NAME, archive, back_up


def test_what_a_recovery_reads_stays_locked(start_server: StartServer) -> None:
    server = start_server(segment_mib=1)
    system = system_of(server)
    server.sql("create table t(x int)")
    server.sql("select pg_switch_wal()")
    clock = FakeClock(datetime.now(UTC))
    store = LockedStorage(clock=clock)
    with Repository.create(store, SECRET, environment=Environment(clock=clock)) as repository:
        archive(repository, server)  # nobody needs this
        back_up(repository, server)
        server.sql("insert into t select generate_series(1, 30000)")
        stored = archive(repository, server)
        clock.advance(timedelta(days=20).total_seconds())
        kept = repository.snapshots.live()
        run_extension(repository, plan_extension(repository, kept, logs=needed_logs(repository, kept)))
        plan = plan_recovery(repository, NAME, "latest", RecoveryTarget())
        read = {file.name for file in plan.segments}
        files = repository.wal.files(system)
    long = clock.now() + timedelta(days=30)
    locked = {file for file in files if store.locks[wal_name(system, file)] > long}
    assert len(read) > 2
    assert read == locked
    assert set(stored) - locked, "what was stored before the base backup is not needed"
