"""A server whose configuration lies elsewhere, as Debian's, is restored with it, and never runs in the old place."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.errors import InvalidRequest, NotFound
from backstay.operations.clusters.configuration import Configuration, overrule_places
from backstay.operations.clusters.plan import RecoveryTarget, plan_recovery
from backstay.operations.clusters.rehearse import RehearsalOptions, rehearse_cluster
from backstay.operations.clusters.restore import ClusterRestoreOptions, restore_cluster
from backstay.repository.repository import Repository
from backstay.sources.postgres.owned_files import OwnedFiles
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


def test_a_copy_lets_nobody_in_and_starts_no_other_server_by_what_its_settings_name(
    repository: Repository, server: Server, place: Path, stopping: list[Server]
) -> None:
    server.sql("create table t as select 1 x")
    server.sql("create role stranger login")
    server.stop("fast")
    (rules := place / "rules").write_text("host all,replication postgres 127.0.0.1/32 trust\n")  # those of initdb stay
    server.own(rules)
    named = {"data_directory": server.data, "hba_file": rules, "external_pid_file": place / "pid"}
    server.configure("postgresql.conf", **named)
    server.start()
    back_up(repository, server)
    server.stop()
    copy = Server(place, name="copy")
    stopping += [copy, server]
    plan = plan_recovery(repository, NAME, "latest", RecoveryTarget())
    restored = restore_cluster(repository, plan, copy.data, ClusterRestoreOptions(port=copy.port))
    assert ["data_directory" in problem for problem in restored.problems] == [True]
    verified = copy.tool("pg_verifybackup", "-n", "-i", "backstay_wal", copy.data, check=False)
    assert verified.returncode == 0, verified.stderr
    copy.start()
    copy.wait_until_promoted()
    shown = [copy.sql(f"show {name}") for name in ("data_directory", "hba_file", "external_pid_file")]
    assert shown == [str(copy.data), str(rules), ""]
    refused = copy.tool("psql", copy.url.replace("postgres@", "stranger@"), "-c", "select 1", check=False)
    assert "no pg_hba.conf entry" in refused.stderr
    assert not (server.data / "postmaster.pid").exists()


@pytest.mark.parametrize(
    "line", [b"Data_Directory '/srv'", b" external_pid_file = '/run/pid'", b"include_dir 'conf.d'"]
)
def test_settings_that_name_places_are_overruled_in_one_copy_alone(tmp_path: Path, line: bytes) -> None:
    main, other = tmp_path / "postgresql.conf", tmp_path / "other"
    main.write_bytes(before := b"work_mem = '7MB'\n" + line + b"\n")
    other.hardlink_to(main)
    assert overrule_places(OwnedFiles(tmp_path))
    assert main.read_bytes().startswith(before)
    assert f"data_directory = '{tmp_path}'" in main.read_text()
    assert other.read_bytes() == before
    assert not overrule_places(OwnedFiles(tmp_path))  # a second time


@pytest.mark.parametrize("line", ["data_directory = '/srv'", "include_dir = 'conf.d'"])
def test_files_that_say_who_may_connect_are_not_overruled(tmp_path: Path, line: str) -> None:
    main = tmp_path / "postgresql.conf"
    main.write_text(before := f"{line}\nhba_file = '/etc/hba'\nident_file = '/etc/ident'\n")
    for left in ("pg_hba.conf", "pg_ident.conf"):
        (tmp_path / left).touch()
    assert overrule_places(OwnedFiles(tmp_path))
    added = main.read_text().removeprefix(before)
    assert "data_directory" in added
    assert "hba_file" not in added
    assert "ident_file" not in added


@pytest.mark.parametrize(
    "line",
    [b"#data_directory = 'ConfigDir'", b"#include_dir = '...'", b"include_me.not = 'x'", b"hba_file = '/srv/hba'"],
)
def test_settings_that_name_no_places_stay_as_they_are(tmp_path: Path, line: bytes) -> None:
    main = tmp_path / "postgresql.conf"
    main.write_bytes(line + b"\n")
    assert not overrule_places(OwnedFiles(tmp_path))
    assert main.read_bytes() == line + b"\n"


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
