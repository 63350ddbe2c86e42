"""Recoveries: what steps that ask find out about files and databases."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing

import pytest

from backstay.errors import (
    StepFailed,
    StepTimeout,
)
from tests.control.recovery.conftest import Site


@pytest.mark.parametrize(
    ("step", "error"),
    [
        ('{type: command, command: ["false"]}', "status 1"),
        ("{type: command, command: [nothing-of-this-name]}", "cannot be started"),
        ('{type: command, command: [echo, "7"], expect: "8"}', "'7' and not '8'"),
        ('{type: file, path: "/nowhere/at/all"}', "is not there"),
        ('{type: file, path: "${ROOT}/source/file-1", min_bytes: 1MiB}', "is too small"),
        ('{type: file, path: "${ROOT}/source", count: 9}', "too few files"),
        ('{type: file, path: "${ROOT}/source/file-1", contains: other}', "does not hold"),
        (f'{{type: file, path: "${{ROOT}}/source/file-1", sha256: "{"0" * 64}"}}', "another file"),
        (
            '{type: query, connection: "sqlite:///${ROOT}/source/file-1", query: SELECT count(*) FROM sqlite_master}',
            "cannot be asked",
        ),
    ],
)
def test_checks_that_fail(site: Site, step: str, error: str) -> None:
    done = site.recover(f"steps:\n  check: {step}\n")
    assert isinstance(done.errors["check"], StepFailed)
    assert error in str(done.errors["check"])


def test_queries_of_sqlite(site: Site) -> None:
    with sqlite3.connect(site.root / "x.db") as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES (7)")
    connection.close()
    database = f"sqlite:///{site.root}/x.db"
    text = f"""
    steps:
      number: {{type: query, connection: "{database}", query: SELECT count(*) FROM t, expect: 1}}
      truth: {{type: query, connection: "{database}", query: SELECT a > 3 FROM t}}
      text: {{type: query, connection: "{database}", query: SELECT 'a', expect: "a"}}
      nothing: {{type: query, connection: "{database}", query: SELECT a FROM t WHERE a < 3, expect: false}}
      wrong: {{type: query, connection: "{database}", query: SELECT a FROM t, expect: 8, on_error: skip}}
    """
    done = site.recover(text)
    assert {name for name, outcome in done.outcomes.items() if outcome == "failed"} == {"wrong"}
    assert "'7' and not 8" in str(done.errors["wrong"])


@pytest.mark.parametrize("value", ["'off'", "'n'", "' '", "0.0", "'nothing is right'", "'--1'", "null"])
def test_only_what_is_true_answers_a_query_that_expects_nothing_else(site: Site, value: str) -> None:
    with closing(sqlite3.connect(site.root / "x.db")) as connection:
        connection.execute("CREATE TABLE t (a)")
    done = site.recover(
        f"""
    steps:
      truth: {{type: query, connection: "sqlite:///{site.root}/x.db", query: "SELECT {value}"}}
    """
    )
    assert isinstance(done.errors["truth"], StepFailed)


def test_a_sqlite_database_is_restored_and_asked(site: Site) -> None:
    with sqlite3.connect(site.root / "x.db") as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()
    site.manager.create_backup(f"sqlite:///{site.root}/x.db", name="db")
    text = """
    steps:
      db: {type: restore, backup: latest:db, to: "sqlite:///${ROOT}/restored.db", verify: true}
      ask:
        type: query
        connection: "sqlite:///${ROOT}/restored.db"
        query: SELECT count(*) FROM sqlite_master
        expect: 1
        needs: [db]
    """
    done = site.recover(text)
    assert done.ok, done.errors


ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


def test_a_query_without_end_ends_when_its_time_is_up(site: Site) -> None:
    sqlite3.connect(site.root / "x.db").close()
    text = f"""
    steps:
      ask: {{type: query, connection: "sqlite:///{site.root}/x.db", query: "{ENDLESS}", timeout: 1s}}
    """
    assert isinstance(site.recover(text).errors["ask"], StepTimeout)


def test_a_pipe_is_not_waited_for(site: Site) -> None:
    os.mkfifo(site.root / "pipe")
    done = site.recover(f'steps:\n  look: {{type: file, path: "{site.root}/pipe", contains: x}}\n')
    assert "no regular file" in str(done.errors["look"])
