"""A server whose configuration lies elsewhere, as Debian's, is restored with it, and never runs in the old place."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.errors import InvalidRequest, NotFound
from backstay.operations.clusters.configuration import Configuration
from backstay.operations.clusters.plan import RecoveryTarget, plan_recovery
from backstay.operations.clusters.rehearse import RehearsalOptions, rehearse_cluster
from backstay.operations.clusters.restore import ClusterRestoreOptions, restore_cluster
from backstay.repository.repository import Repository
from tests.postgres.recovering import NAME, back_up
from tests.postgres.servers import Server, installation


@pytest.fixture
def elsewhere(server: Server, place: Path) -> Path:
    """Where the configuration of a running server lies, as Debian writes it."""
    server.sql("create table t as select 1 x")
    server.stop("fast")
    etc = place / "etc"
    (etc / "conf.d").mkdir(parents=True)
    for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
        (server.data / name).rename(etc / name)
    (etc / "conf.d" / "own.conf").write_text("work_mem = '7MB'\n")
    with (etc / "postgresql.conf").open("a") as lines:
        lines.write(f"data_directory = '{server.data}'\nhba_file = '{etc}/pg_hba.conf'\ninclude_dir = 'conf.d'\n")
        lines.write(f"ident_file = '{etc}/pg_ident.conf'\nexternal_pid_file = '{place}/main.pid'\n")
    server.own(etc)
    server.tool("pg_ctl", "-D", etc, "-l", server.log_file, "-w", "start")
    return etc


def test_a_copy_has_the_settings_of_the_server_and_places_of_its_own(
    repository: Repository, server: Server, elsewhere: Path, place: Path, stopping: list[Server]
) -> None:
    back_up(repository, server)
    plan = plan_recovery(repository, NAME, "latest", RecoveryTarget())
    copy = Server(place, name="copy")
    stopping.append(copy)
    options = ClusterRestoreOptions(configuration=Configuration.read(elsewhere), port=copy.port)
    restore_cluster(repository, plan, copy.data, options)
    verified = copy.tool("pg_verifybackup", "-n", "-i", "backstay_wal", copy.data, check=False)
    assert verified.returncode == 0, verified.stderr
    copy.start()
    copy.wait_until_promoted()
    shown = [copy.sql(f"show {name}") for name in ("work_mem", "data_directory", "hba_file", "external_pid_file")]
    assert shown == ["7MB", str(copy.data), str(copy.data / "pg_hba.conf"), ""]
    assert server.sql("select count(*) from t") == "1"  # was left alone
    rehearsed = rehearse_cluster(
        repository,
        plan,
        RehearsalOptions(
            scratch=place / "scratch",
            programs=installation(18) / "bin",
            assertions=("select current_setting('work_mem') = '7MB'",),
            configuration=Configuration.read(elsewhere),
        ),
    )
    assert rehearsed.ok, rehearsed


def test_configuration_that_is_missing_or_in_the_backup_is_told_before_anything_is_written(
    repository: Repository, server: Server, place: Path
) -> None:
    with pytest.raises(NotFound, match=r"no postgresql\.conf"):
        Configuration.read(place / "nowhere")
    back_up(repository, server)
    plan = plan_recovery(repository, NAME, "latest", RecoveryTarget())
    options = ClusterRestoreOptions(configuration=Configuration.read(server.data))
    with pytest.raises(InvalidRequest, match=r"holds postgresql\.conf itself"):
        restore_cluster(repository, plan, place / "copy", options)
    assert not (place / "copy").exists()
