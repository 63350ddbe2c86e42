"""Which programs are taken, by what they tell of themselves, and what is understood of their dumps."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.errors import VersionUnsupported
from backstay.sources.mysql.dump import position_in, position_option
from backstay.sources.mysql.programs import client, dumper, log_reader

MARIADB = "mysqldump  Ver 10.19 Distrib 10.11.18-MariaDB, for debian-linux-gnu (x86_64)"
MARIADB_11 = "mariadb-dump from 11.4.2-MariaDB, client 10.19 for Linux (x86_64)"
MYSQL = "mysqldump  Ver 8.4.3 for Linux on x86_64 (MySQL Community Server - GPL)"
MYSQL_OLD = "mysqldump  Ver 8.0.25 for Linux on x86_64 (MySQL Community Server - GPL)"


def install(place: Path, **programs: str) -> dict[str, str]:
    """Programs that tell a version and do nothing else; the environment that finds them."""
    for name, version in programs.items():
        path = place / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\necho '{version}'\n")
        path.chmod(0o755)
    return {"PATH": str(place)}


@pytest.mark.parametrize(
    ("version", "mariadb", "option"),
    [
        (MARIADB, True, "--master-data=2"),
        (MARIADB_11, True, "--master-data=2"),
        (MYSQL_OLD, False, "--master-data=2"),
        (MYSQL, False, "--source-data=2"),
    ],
)
def test_a_dump_program_is_asked_for_the_position_in_its_own_words(
    tmp_path: Path, version: str, mariadb: bool, option: str
) -> None:
    found = dumper(install(tmp_path, mysqldump=version), mariadb=mariadb)
    assert position_option(found) == option
    assert ".".join(map(str, found.version)) in version
    assert len(found.version) == 3


def test_each_server_is_dumped_by_its_own_program(tmp_path: Path) -> None:
    environ = install(tmp_path, mysqldump=MYSQL, mariadb_dump=MARIADB, mysql=MYSQL, mariadb=MARIADB)
    assert Path(dumper(environ, mariadb=True).path).name == "mariadb-dump"
    assert Path(dumper(environ, mariadb=False).path).name == "mysqldump"
    assert Path(client(environ, mariadb=True).path).name == "mariadb"
    assert Path(client(environ, mariadb=False).path).name == "mysql"


def test_a_dump_program_of_the_other_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VersionUnsupported, match="dumping MySQL takes mysqldump") as caught:
        dumper(install(tmp_path, mysqldump=MARIADB), mariadb=False)
    assert "is that of MariaDB" in caught.value.cause
    assert "mysql-client" in caught.value.hint


@pytest.mark.parametrize(
    "line",
    [
        "-- CHANGE MASTER TO MASTER_LOG_FILE='bin.000042', MASTER_LOG_POS=1234;",
        "-- CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='bin.000042', SOURCE_LOG_POS=1234;",
    ],
)
def test_the_position_is_read_in_the_words_of_all_versions(line: str) -> None:
    head = f"-- MySQL dump 10.13\n--\n\n{line}\n\n-- CHANGE MASTER TO MASTER_LOG_FILE='later', MASTER_LOG_POS=1;\n"
    assert position_in(head.encode()) == {"binlog_file": "bin.000042", "binlog_position": "1234"}
    assert position_in(head.replace("-- CHANGE", "CHANGE").encode()) == {}


def test_the_program_for_the_log_is_told_by_its_name(tmp_path: Path) -> None:
    environ = install(tmp_path, mariadb_binlog="Ver 3.5 for debian-linux-gnu at x86_64")
    (tmp_path / "mysqlbinlog").symlink_to("mariadb-binlog")
    assert log_reader(environ, mariadb=True) == str(tmp_path / "mariadb-binlog")
    with pytest.raises(VersionUnsupported, match="takes mysqlbinlog"):
        log_reader(environ, mariadb=False)
    with pytest.raises(VersionUnsupported, match="mariadb-binlog is not in PATH"):
        log_reader({"PATH": "/nonexistent"}, mariadb=True)
