"""`pg setup`: what a server lacks is named with the command that mends it, and a server that is ready is told so."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from backstay.errors import ReplicationDenied, SourceRefused
from backstay.operations.clusters.setup import SetupOptions, SetupPlan, apply_setup, plan_setup
from backstay.sources.postgres.access import hba_line, remedy
from backstay.sources.postgres.connection import Connection
from tests.postgres.conftest import StartServer
from tests.postgres.receivers import Archive, ThreadedReceiver, until, until_stored
from tests.postgres.servers import Server

HBA = "host all all 127.0.0.1/32 trust\nhost replication postgres 127.0.0.1/32 trust\n"


def options(server: Server, role: str = "postgres", **more: Any) -> SetupOptions:
    return SetupOptions(url=server.url.replace("postgres@", f"{role}@"), name="main", **more)


def states(plan: SetupPlan, state: str) -> set[str]:
    return {finding.subject for finding in plan.findings if finding.state == state}


def sql(plan: SetupPlan, subject: str) -> tuple[str, ...]:
    return next(finding.sql for finding in plan.findings if finding.subject == subject)


def has_command(server: Server, command: str) -> bool:
    return server.sql("show archive_command") == command


def test_what_a_server_lacks_is_done_and_then_it_is_ready(start_server: StartServer, archive: Archive) -> None:
    server = start_server(
        wal_level="minimal",
        max_wal_senders=0,
        summarize_wal="off",
        full_page_writes="off",
        wal_summary_keep_time="1d",
        archive_command="/bin/true",
    )
    plan = plan_setup(options(server))
    assert states(plan, "must") == {"wal_level", "max_wal_senders", "pg_hba.conf"}
    recommended = {"max_slot_wal_keep_size", "slot", "summarize_wal", "wal_summary_keep_time"}
    assert states(plan, "should") == {*recommended, "fsync", "full_page_writes"}
    assert sql(plan, "wal_level") == ("ALTER SYSTEM SET wal_level = 'replica'",)
    assert server.sql("select count(*) from pg_file_settings where sourcefile like '%auto.conf'") == "0"

    done = archive.run("pg", "setup", server.url, "--name", "main", "--apply", status=1)
    assert "ran     ALTER SYSTEM SET wal_level = 'replica';  -- counts after a restart" in done.stdout
    assert "refused SELECT pg_create_physical_replication_slot" in done.stdout  # before the restart
    assert "restart the server" in done.stdout
    plan = plan_setup(options(server))
    assert (sql(plan, "wal_level"), sql(plan, "max_wal_senders")) == ((), ())  # they wait for the restart
    server.stop("fast")
    server.start()
    assert not any(command.error for command in apply_setup(options(server), plan_setup(options(server))))
    found = archive.json("pg", "setup", server.url, "--name", "main")
    assert found["ready"] is True
    assert {finding["state"] for finding in found["findings"]} == {"ok"}
    with ThreadedReceiver(archive, server):
        server.sql("create table t(i int)")
        until_stored(archive, server)


def test_roles_and_lines_of_pg_hba_are_really_tried(server: Server) -> None:
    server.sql("create role weak login; create role backup login replication")
    (server.data / "pg_hba.conf").write_text(HBA)
    server.sql("select pg_reload_conf()")
    line = "host replication backup 127.0.0.1/32 scram-sha-256"
    plan = plan_setup(options(server, "backup"))
    assert states(plan, "must") == {"pg_hba.conf"}
    assert any(line in finding.by_hand for finding in plan.findings)
    with pytest.raises(ReplicationDenied) as denied:
        Connection(options(server, "backup").url, replication=True)
    assert line in denied.value.hint
    plan = plan_setup(options(server, "weak"))
    assert sql(plan, "role") == ('ALTER ROLE "weak" LOGIN REPLICATION',)
    refused = [command.sql for command in apply_setup(options(server, "weak"), plan) if command.error]
    assert refused[0] == 'ALTER ROLE "weak" LOGIN REPLICATION'
    assert sql(plan_setup(options(server, role="postgres")), "role") == ()
    with pytest.raises(SourceRefused) as unknown:
        plan_setup(options(server, "nobody"))
    assert 'CREATE ROLE "nobody"' in unknown.value.hint
    (server.data / "pg_hba.conf").write_text(HBA.replace("replication postgres", "replication all"))
    server.sql("select pg_reload_conf()")
    with pytest.raises(ReplicationDenied) as powerless:
        Connection(options(server, "weak").url, replication=True)
    assert powerless.value.hint == 'ALTER ROLE "weak" REPLICATION'


def test_archiving_that_would_lose_wal_is_refused(start_server: StartServer) -> None:
    server = start_server(archive_mode="on", archive_command="backstay pg archive %p", archive_timeout="1h")
    assert states(plan_setup(options(server, way="archive")), "must") == {"archive_timeout"}
    server.sql("alter system set archive_timeout = '60s'")
    for command in ("/bin/true", "test -e x || true", ":", "exit 0", "cp %p /elsewhere", ""):
        server.sql(f"alter system set archive_command = '{command}'")
        server.sql("select pg_reload_conf()")
        until(partial(has_command, server, command), "the setting counts")
        assert states(plan_setup(options(server, way="archive")), "must") == {"archive_command"}
        assert states(plan_setup(options(server)), "must") == set()  # a receiver needs none of it


def test_a_line_of_pg_hba_has_the_address_that_the_server_saw() -> None:
    assert hba_line("backup", "10.0.0.7") == "host replication backup 10.0.0.7/32 scram-sha-256"
    assert hba_line("back-up", "fe80::1") == 'host replication "back-up" fe80::1/128 scram-sha-256'
    assert hba_line("backup", None, "shop") == "local shop backup scram-sha-256"
    told = 'no pg_hba.conf entry for host "10.0.0.7", user "backup", database "shop", no encryption'
    assert remedy(told, "backup").endswith("host shop backup 10.0.0.7/32 scram-sha-256")
    assert remedy("something else", "backup") == ""
