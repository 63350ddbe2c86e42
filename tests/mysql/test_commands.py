"""The command line with MySQL addresses: backup, restore, what it tells, how it ends."""

from __future__ import annotations

import os
from pathlib import Path

from tests.cli.conftest import Account
from tests.mysql.servers import Server


def test_a_database_is_backed_up_and_restored_by_two_commands(server: Server, account: Account) -> None:
    account.environ["PATH"] = os.environ["PATH"]
    server.sql("CREATE DATABASE shop; CREATE TABLE shop.item (i INT); INSERT INTO shop.item VALUES (1), (2)")
    made = account.json("backup", "--source", server.url + "shop", "--name", "shop")
    told = account.json("info", "latest:shop")["consistency"]
    assert {"binlog_file", "binlog_position", "gtid_position", "server_version"} <= set(told)
    assert told["binlog_file"] in account.run("info", "latest:shop").out

    refused = account.run("restore", "latest:shop", "--to", server.url, status=17)
    assert "table shop.item" in refused.err
    server.sql("DELETE FROM shop.item")
    planned = account.json("restore", "latest:shop", "--to", server.url, "--conflict", "overwrite", "--dry-run")
    assert (planned["database"], planned["conflict_names"]) == ("shop", ["table shop.item"])
    assert server.sql("SELECT * FROM shop.item") == ""
    done = account.run("restore", "latest:shop", "--to", server.url, "--conflict", "overwrite")
    assert made["snapshot"] in done.out
    assert server.sql("SELECT * FROM shop.item") == "1\n2"

    account.run("restore", "latest:shop", "--to", account.root / "files")
    assert sorted(path.name for path in (account.root / "files").rglob("*.*")) == [
        "127.0.0.1:" + str(server.port),
        "database.sql",
        "server.json",
    ]


def test_a_dry_run_dumps_nothing(server: Server, saved: Account) -> None:
    saved.environ["PATH"] = os.environ["PATH"]
    server.sql("CREATE DATABASE shop; CREATE TABLE shop.item (i INT)")
    told = saved.json("backup", "--source", server.url, "--dry-run")
    assert (told["snapshot"], told["files"]) == (None, 3)


def test_what_does_not_go_with_such_an_address_is_refused(server: Server, saved: Account, tmp_path: Path) -> None:
    saved.environ["PATH"] = os.environ["PATH"]
    assert "MySQL has no schemas" in saved.run("backup", "--source", server.url, "--schema", "x", status=2).err
    assert "by itself" in saved.run("backup", tmp_path, "--source", server.url, status=2).err
    assert "holds no dump of MySQL" in saved.run("restore", "latest", "--to", server.url + "x", status=2).err
    assert "as a whole" in saved.run("restore", "latest", "--to", server.url + "x", "--table", "t", status=2).err
