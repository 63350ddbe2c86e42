"""Databases on the command line: what is printed, and what each end is called."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Account
from tests.postgres.dumps import new_database, tables
from tests.postgres.servers import Server, running_server

SECRET = "never-to-be-seen"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server() as server:
        new_database(server, "shop", "create schema a; create table a.t as select generate_series(1, 3000) i")
        yield server


@pytest.fixture
def account(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Account:
    """An account with a repository of its own."""
    (tmp_path / "home").mkdir()
    environ = {"HOME": str(tmp_path / "home"), "TZ": "UTC", "PATH": os.environ["PATH"]}
    return Account(tmp_path, capsys, environ)


def at(server: Server, database: str) -> str:
    return f"postgresql://postgres:{SECRET}@127.0.0.1:{server.port}/{database}"


def test_a_dump_is_a_snapshot_like_others(account: Account, server: Server) -> None:
    new_database(server, "moving", "create table t(i int)")
    first = account.json("backup", "--source", at(server, "moving"), "--name", "shop")
    assert (first["kind"], first["files_new"], first["errors"]) == ("full", 3, [])
    server.sql("insert into t values (1)", "moving")
    account.json("backup", "--source", at(server, "moving"), "--name", "shop", "--kind", "incremental")
    listed = account.json("list")
    assert [item["kind"] for item in listed] == ["full", "full"]
    assert listed[0]["sources"] == [f"/postgresql/127.0.0.1:{server.port}/moving"]
    place = listed[0]["sources"][0]
    assert "database.dump" in account.run("ls", "latest:shop", place).out
    assert '"database": "moving"' in account.run("cat", "latest:shop", f"{place}/database.json").out
    assert account.run("find", "*.sql").out.count("globals.sql") == 2
    assert "database.dump" in account.run("diff", first["snapshot"], "latest:shop").out
    account.run("verify", "--read-data")
    account.run("restore", "latest:shop", "--to", account.root / "files")
    assert Path(f"{account.root}/files{place}/database.dump").read_bytes().startswith(b"PGDMP")
    stored = account.run("list").out + account.run("info", "latest:shop").out
    assert SECRET not in stored


def test_a_policy_dumps_a_database_whose_address_comes_from_a_variable(account: Account, server: Server) -> None:
    (account.root / "documents").mkdir()
    (account.root / "documents/note").write_text("a note")
    (account.root / "backstay.yaml").write_text(
        f"""
policies:
  shop:
    sources:
      - {{type: postgresql, connection: "${{DB_URL}}", schemas: [a], name: db}}
      - {{type: filesystem, paths: ["{account.root}/documents"]}}
    verification: {{each_run: true, restore_test: true}}
"""
    )
    account.environ |= {"BACKSTAY_CONFIG": str(account.root / "backstay.yaml"), "DB_URL": at(server, "shop")}
    done = account.json("run", "shop")
    assert [backup["name"] for backup in done["backups"]] == ["shop-db", "shop"]
    assert done["verification"]["ok"]
    new_database(server, "copied")
    account.run("restore", "latest:shop-db", "--to", at(server, "copied"))
    assert tables(server, "copied") == tables(server, "shop")
    for told in (account.run("policy", "show"), account.run("run", "shop")):
        assert SECRET not in told.out + told.err
    account.environ["DB_URL"] = at(server, "no-such-database")
    failed = account.run("run", "shop", status=1)
    assert SECRET not in failed.out + failed.err
    assert "shop:\n" in failed.out  # the files all the same


def test_a_dump_goes_into_a_database_once(account: Account, server: Server) -> None:
    account.run("backup", "--source", at(server, "shop"))
    new_database(server, "back")
    planned = account.json("restore", "latest", "--to", at(server, "back"), "--dry-run")
    assert (planned["objects"], planned["conflicts"], planned["database"]) == (2, 0, "back")
    assert tables(server, "back") == set()
    done = account.run("restore", "latest", "--to", at(server, "back"))
    assert "2 objects" in done.out
    assert SECRET not in done.out + done.err
    again = account.json("restore", "latest", "--to", at(server, "back"), status=17)
    assert (again["code"], again["paths"]) == ("RestoreConflict", ["table a.t"])
    assert account.json("restore", "latest", "--to", at(server, "back"), "--dry-run", status=17)["conflicts"] == 1
    account.run("restore", "latest", "--to", at(server, "back"), "--conflict", "overwrite")
    assert server.sql("select count(*) from a.t", "back") == "3000"


def test_what_makes_no_sense_is_told_in_three_lines(account: Account, server: Server) -> None:
    account.documents.mkdir()
    account.run("backup", account.documents, "--name", "files")
    account.run("backup", "--source", at(server, "shop"), "--name", "dump")
    with closing(sqlite3.connect(account.root / "a.db")) as db:
        db.execute("create table t(i)")
    account.run("backup", "--source", f"sqlite:{account.root}/a.db", "--name", "lite")
    shop, lite = at(server, "shop"), f"sqlite:///{account.root}/b.db"
    wrong: dict[tuple[object, ...], int] = {
        ("backup", "--source", at(server, "none")): 1,
        ("backup", "--source", f"postgresql://postgres:{SECRET}@[127.0.0.1/x"): 2,
        ("backup", "--source", f"postgresql://postgres:{SECRET}%ZZ@127.0.0.1/x"): 2,
        ("backup", "--source", shop, "--schema", "none"): 1,
        ("backup", "--source", shop, account.documents): 2,
        ("backup", "--source", shop, "--exclude", "x"): 2,
        ("backup", "--source", lite, "--schema", "a"): 2,
        ("backup", "--source", lite): 1,
        ("backup", account.documents, "--schema", "a"): 2,
        ("restore", "latest:files", "--to", shop): 2,
        ("restore", "latest:lite", "--to", shop): 2,
        ("restore", "latest:files", "--to", lite): 2,
        ("restore", "latest:dump", "--to", lite): 2,
        ("restore", "latest:dump", "--in-place"): 2,
        ("restore", "latest:dump", "--to", shop, "--delete"): 2,
        ("restore", "latest:dump", "--to", shop, "--conflict", "rename"): 2,
        ("restore", "latest:dump", "--to", shop, "--table", "none"): 1,
        ("restore", "latest:dump", "--to", at(server, "none")): 1,
        ("restore", "latest:dump", "--to", account.root / "x", "--schema", "a"): 2,
        ("restore", "latest:lite", "--to", lite, "--no-owner"): 2,
    }
    for arguments, status in wrong.items():
        told = account.run(*arguments, status=status)
        assert [line.partition(":")[0] for line in told.err.strip().splitlines()[-3:]] == ["error", "cause", "hint"]
        assert SECRET not in told.out + told.err
        assert "Traceback" not in told.err


def test_a_sqlite_database_goes_there_and_back(account: Account) -> None:
    file = account.root / "app.db"
    with closing(sqlite3.connect(file)) as db:
        db.execute("create table t as select 1 as i")
        db.commit()
    made = account.json("backup", "--source", f"sqlite:///{file}", "--name", "app")
    assert (made["kind"], made["files"], made["bytes_scanned"]) == ("full", 1, file.stat().st_size)
    with closing(sqlite3.connect(file)) as db:
        db.execute("update t set i = 2")
        db.commit()
    account.run("restore", "latest:app", "--in-place", status=17)
    account.run("restore", "latest:app", "--in-place", "--conflict", "overwrite", "--verify")
    other = account.json("restore", "latest:app", "--to", f"sqlite:///{account.root}/other.db")
    assert (other["files"], other["unchanged"]) == (1, 0)
    assert account.json("restore", "latest:app", "--to", f"sqlite:///{account.root}/other.db")["unchanged"] == 1
    account.run("verify", "latest:app", "--rehearse", account.root / "rehearsal")
    for place in (file, account.root / "other.db"):
        with closing(sqlite3.connect(place)) as db:
            assert db.execute("select i from t").fetchone() == (1,)
