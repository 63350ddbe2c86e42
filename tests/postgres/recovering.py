"""Backups of test servers, WAL into the repository without a receiver, and servers that have recovered."""

from __future__ import annotations

from backstay.operations.clusters.backup import ClusterBackupOptions, ClusterBackupResult, back_up_cluster
from backstay.operations.clusters.plan import RecoveryTarget, plan_recovery
from backstay.operations.clusters.restore import restore_cluster
from backstay.repository.repository import Repository
from backstay.sources.postgres.lsn import is_segment
from tests.postgres.servers import Server

NAME = "main"


def back_up(repository: Repository, server: Server, *, full: bool = False) -> ClusterBackupResult:
    return back_up_cluster(repository, server.url, ClusterBackupOptions(name=NAME, host="here", full=full))


def archive(repository: Repository, server: Server) -> list[str]:
    """Store all WAL that the server has written; the segments that it has completed by now."""
    # What follows a target is what tells a server that it has arrived.
    server.sql("select pg_logical_emit_message(true, 'test', 'x')")
    present = server.sql("select pg_walfile_name(pg_switch_wal())")
    server.sql("select pg_logical_emit_message(true, 'test', 'x')")
    system = int(server.sql("select system_identifier from pg_control_system()"))
    stored = []
    for file in sorted((server.data / "pg_wal").iterdir()):
        if file.suffix == ".history" or (
            is_segment(file.name) and file.name[:8] == present[:8] and file.name <= present
        ):
            repository.wal.store(system, file.name, file.read_bytes())
            stored.append(file.name)
    return stored


def restored(
    repository: Repository, server: Server, name: str, *, snapshot: str = "latest", target: RecoveryTarget | None = None
) -> Server:
    """A server that would recover if it was started, to the end of the WAL if not said otherwise."""
    copy = Server(server.place, version=server.version, name=name)
    plan = plan_recovery(repository, NAME, snapshot, target or RecoveryTarget())
    restore_cluster(repository, plan, copy.data)
    copy.own(copy.data)
    return copy


def recovered(
    repository: Repository, server: Server, name: str, *, snapshot: str = "latest", target: RecoveryTarget | None = None
) -> Server:
    """A server that has recovered."""
    copy = restored(repository, server, name, snapshot=snapshot, target=target)
    verified = copy.tool("pg_verifybackup", "-n", "-i", "backstay_wal", copy.data, check=False)
    assert verified.returncode == 0, verified.stderr
    copy.configure("postgresql.auto.conf", port=copy.port)
    copy.start()
    copy.wait_until_promoted()
    return copy
