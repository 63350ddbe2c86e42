"""Dumps of MariaDB: one moment, which the snapshot tells; restored as they were, and never half in silence."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backstay.core.clock import SystemClock
from backstay.core.events import Event, Progress
from backstay.errors import (
    BackstayError,
    CorruptedBackup,
    DumpFailed,
    InvalidRequest,
    NotFound,
    RestoreConflict,
    RestoreFailed,
    SourceRefused,
    SourceUnreachable,
    VersionUnsupported,
)
from backstay.operations.backup.run import BackupOptions, BackupResult, run_backup
from backstay.operations.restore.mysql_dump import MysqlPlan, plan_mysql_restore, run_mysql_restore
from backstay.operations.restore.run import RestoreOptions, run_restore
from backstay.operations.snapshots.look import open_file
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.sources.generated import GeneratedFile, GeneratedSource
from backstay.sources.mysql.address import parse_address
from backstay.sources.mysql.dump import mysql_source
from backstay.sources.mysql.restoring import renamed, run_client
from backstay.sources.mysql.server import Server as MysqlServer
from tests.mysql.servers import Server
from tests.ports import free_port

SHOP = """
    CREATE DATABASE shop CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci;
    USE shop;
    CREATE TABLE item (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(80), data BLOB, price DECIMAL(10,2));
    CREATE TABLE sale (id INT PRIMARY KEY AUTO_INCREMENT, item INT, FOREIGN KEY (item) REFERENCES item (id));
    INSERT INTO item VALUES (1, 'Zürich 🚲', X'0001FF0A1A5C27', 9.90);
    INSERT INTO item VALUES (2, 'it''s\\n--\\n\\\\', NULL, NULL), (3, '', '', 0);
    INSERT INTO sale (item) VALUES (1), (1), (NULL);
    CREATE VIEW cheap AS SELECT id FROM item WHERE price < 10;
    CREATE TRIGGER upper_name BEFORE INSERT ON item FOR EACH ROW SET NEW.name = upper(NEW.name);
    DELIMITER //
    CREATE PROCEDURE total() BEGIN
-- Current Database: `other`
-- CHANGE MASTER TO MASTER_LOG_FILE='wrong', MASTER_LOG_POS=1;
      SELECT sum(price) FROM item; END//
    DELIMITER ;
    CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DO DELETE FROM sale WHERE item IS NULL;
"""
BULK = """
    INSERT INTO item (name, data) SELECT md5(seq), unhex(concat(sha2(seq, 512), sha2(-seq, 512))) FROM seq_1_to_20000"""


def source(url: str, warnings: list[str] | None = None, **environ: str) -> GeneratedSource:
    told = [] if warnings is None else warnings
    return mysql_source(url, clock=SystemClock(), environ={"PATH": os.environ["PATH"], **environ}, warn=told.append)


def backup(repository: Repository, url: str, **environ: str) -> tuple[Manifest, BackupResult]:
    result = run_backup(repository, source(url, None, **environ), BackupOptions(host="host"))
    return repository.snapshots.live()[-1], result


def restore(repository: Repository, manifest: Manifest, url: str, **how: Any) -> MysqlPlan:
    return run_mysql_restore(repository, manifest, url, RestoreOptions(**how), environ=dict(os.environ))


def stored(repository: Repository, manifest: Manifest, name: bytes) -> bytes:
    return b"".join(map(bytes, open_file(repository, manifest, manifest.paths[0] + b"/" + name)))


def generated(what: GeneratedSource, name: bytes) -> GeneratedFile:
    """The file of a source, which is in the deepest of its directories."""
    directory = what.root()
    while True:
        rows = [row for page in directory.pages() for row in page]
        if len(rows) > 1:
            return directory._branch.files[name]
        directory = directory.enter(rows[0])


def contents(server: Server, database: str) -> str:
    """All that a test looks at in a database."""
    queries = (
        "SELECT id, name, hex(data), price FROM item ORDER BY id",
        "SELECT * FROM sale ORDER BY id",
        "SELECT * FROM cheap",
        "CALL total()",
        f"SELECT trigger_name, action_statement FROM information_schema.triggers WHERE trigger_schema = '{database}'",
        f"SELECT event_name, event_definition FROM information_schema.events WHERE event_schema = '{database}'",
        "SHOW CREATE TABLE sale",
    )
    return server.sql(";\n".join(queries), database)


def test_a_database_comes_back_under_another_name_with_all_that_belongs_to_it(
    server: Server, repository: Repository
) -> None:
    server.sql(SHOP)
    manifest, result = backup(repository, server.url + "shop")
    assert (manifest.source.partition(":")[0], result.files) == ("mysql", 2)
    plan = restore(repository, manifest, server.url + "copy")
    assert (plan.databases, plan.objects, plan.warnings) == (("copy",), 3, ())
    assert contents(server, "copy") == contents(server, "shop")
    made = "SELECT default_collation_name FROM information_schema.schemata WHERE schema_name = 'copy'"
    assert server.sql(made) == "utf8mb4_unicode_ci"


def test_a_copy_leaves_the_database_alone_that_it_was_made_of(server: Server, repository: Repository) -> None:
    server.sql("CREATE DATABASE shop CHARACTER SET latin1; CREATE PROCEDURE shop.p() SELECT 1")
    server.sql("ALTER DATABASE shop CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci; CREATE TABLE shop.item (i INT)")
    server.sql("CREATE VIEW shop.cheap AS SELECT i FROM shop.item; INSERT INTO shop.item VALUES (1)")
    manifest, _ = backup(repository, server.url + "shop")
    assert b"\nALTER DATABASE `shop` CHARACTER SET latin1" in stored(repository, manifest, b"database.sql")
    server.sql("DROP DATABASE shop")  # so that everything fails which names it
    restore(repository, manifest, server.url + "copy")
    assert server.sql("SELECT * FROM cheap; CALL p()", "copy") == "1\n1"
    how = "SELECT database_collation FROM information_schema.routines WHERE routine_schema = 'copy'"
    assert server.sql(how) == "latin1_swedish_ci"


@pytest.mark.parametrize("size", [1, 7, 40, 1000])
def test_a_database_is_renamed_wherever_a_dump_is_cut(size: int) -> None:
    line = b"\nALTER DATABASE `%s` CHARACTER SET latin1 COLLATE latin1_bin ;\n"
    data = b"x" * 50 + line % b"a``b" + b"-- ALTER DATABASE `a``b`" + 2 * (line % b"a``b") + line % b"other"
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert b"".join(map(bytes, renamed(pieces, "a`b", "c"))) == data.replace(line % b"a``b", line % b"c")


def test_what_is_special_about_mariadb_comes_back(server: Server, repository: Repository) -> None:
    server.sql("CREATE DATABASE shop")
    server.sql(
        """
        SET sql_mode = '';
        CREATE TABLE made (a INT, b INT AS (a + 1) STORED, c INT INVISIBLE DEFAULT 3, d DATETIME);
        INSERT INTO made (a, c, d) VALUES (1, 9, '0000-00-00 00:00:00');
        CREATE SEQUENCE number; DO nextval(number);
        CREATE TABLE odd (t TEXT, b VARBINARY(300)); INSERT INTO odd VALUES ('a\\0b\\r\\nc\\Z', X'00ff0d0a1a5c');
        CREATE TABLE versions (a INT) WITH SYSTEM VERSIONING; INSERT INTO versions VALUES (1); DELETE FROM versions;
        """,
        "shop",
    )
    warnings: list[str] = []
    run_backup(repository, source(server.url + "shop", warnings), BackupOptions(host="host"))
    assert [warning.rpartition(": ")[2] for warning in warnings] == ["shop.versions"]
    restore(repository, repository.snapshots.live()[-1], server.url + "copy")
    assert server.sql("SELECT a, b, c, d FROM made", "copy") == "1\t2\t9\t0000-00-00 00:00:00"
    assert server.sql("SELECT hex(t), hex(b) FROM odd", "copy") == "6100620D0A631A\t00FF0D0A1A5C"
    assert int(server.sql("SELECT nextval(number)", "copy")) > 1


def test_the_snapshot_tells_the_position_in_the_binary_log_that_its_rows_belong_to(
    server: Server, repository: Repository
) -> None:
    server.sql(SHOP + BULK)
    # More than fits into a pipe is dumped before `sale`: the dump waits there until it is read on.
    dump = generated(what := source(server.url + "shop"), b"database.sql").open()
    with closing_reader(dump):
        head = dump.read(1 << 16)
        server.sql("INSERT INTO sale VALUES (77, 2); INSERT INTO item (name) VALUES ('later')", "shop")
        rest = b"".join(iter(lambda: dump.read(1 << 20), b""))
        dump.finish()
    assert b"77,2" not in head + rest
    told = what.consistency()
    assert (told["binlog_file"], told["server_version"]) == (
        server.sql("SHOW BINARY LOGS").splitlines()[-1].split("\t")[0],
        server.sql("SELECT version()"),
    )
    assert told["gtid_position"].startswith("0-7-")
    behind = server.binlog(int(told["binlog_position"]), told["binlog_file"])
    assert behind.count("Table_map: `shop`") == 2
    manifest, _ = backup(repository, server.url + "shop")
    facts = json.loads(stored(repository, manifest, b"server.json"))
    position = {"binlog_file", "binlog_position", "gtid_position"}
    assert facts["binary_log"] == {key: manifest.consistency[key] for key in position}


def closing_reader(reader: Any) -> closing[Any]:
    reader.close = reader.abandon
    return closing(reader)


def test_all_databases_come_back_under_their_names(server: Server, repository: Repository) -> None:
    odd = "a`b/c%-é"
    quoted = "`" + odd.replace("`", "``") + "`"
    server.sql(SHOP + f"CREATE DATABASE {quoted}; CREATE TABLE {quoted}.t (i INT); INSERT INTO {quoted}.t VALUES (5);")
    server.sql("CREATE DATABASE `-x`; CREATE TABLE `-x`.t (i INT)")
    before = contents(server, "shop")
    manifest, _ = backup(repository, server.url)
    assert b"CREATE TABLE `user`" not in stored(repository, manifest, b"databases.sql")
    server.clear()
    plan = restore(repository, manifest, server.url)
    assert plan.databases == ("-x", odd, "shop")
    assert contents(server, "shop") == before
    assert server.sql("SELECT * FROM t", odd) == "5"
    with pytest.raises(InvalidRequest, match="under their own names"):
        restore(repository, manifest, server.url + "shop")


def test_a_dump_of_all_databases_has_the_accounts_that_the_user_may_read(
    server: Server, repository: Repository
) -> None:
    server.sql("CREATE DATABASE shop; CREATE TABLE shop.item (i INT); CREATE USER test@'127.0.0.1'")
    server.sql("GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON shop.* TO test@'127.0.0.1'")
    manifest, result = backup(repository, server.url)
    assert result.files == 3
    accounts = stored(repository, manifest, b"accounts.sql").decode()
    assert "GRANT SELECT, TRIGGER" in accounts or "GRANT SELECT, SHOW VIEW" in accounts
    assert "CREATE USER `test`@`127.0.0.1`" in accounts
    warnings: list[str] = []
    source(server.url.replace("root", "test"), warnings)
    assert ["accounts" in warning for warning in warnings] == [True]
    manifest, result = backup(repository, server.url.replace("root", "test"))
    assert (result.files, "binlog_file" in manifest.consistency) == (2, True)


def test_a_second_dump_stores_little_more_than_what_changed(server: Server, repository: Repository) -> None:
    server.sql(SHOP + BULK)
    _, first = backup(repository, server.url + "shop")
    server.sql("UPDATE item SET name = 'x' WHERE id = 700; INSERT INTO item (name) VALUES ('new')", "shop")
    _, second = backup(repository, server.url + "shop")
    assert first.bytes_read > 5_000_000
    assert second.bytes_added < first.bytes_added / 8


def test_what_is_there_is_not_replaced_unless_asked_to(server: Server, repository: Repository) -> None:
    server.sql(SHOP)
    manifest, _ = backup(repository, server.url + "shop")
    before = contents(server, "shop")
    server.sql("DELETE FROM sale; DROP VIEW cheap; CREATE TABLE other (i INT)", "shop")
    with pytest.raises(RestoreConflict) as caught:
        restore(repository, manifest, server.url + "shop")
    assert "table shop.item" in caught.value.paths
    assert {"procedure shop.total", "event shop.nightly"} < set(caught.value.paths)
    assert server.sql("SELECT count(*) FROM sale", "shop") == "0"
    plan = plan_mysql_restore(repository, manifest, server.url, RestoreOptions(), environ=dict(os.environ))
    assert (plan.databases, plan.conflicts) == (("shop",), caught.value.paths)
    restore(repository, manifest, server.url, conflict="overwrite")
    assert contents(server, "shop") == before
    assert server.sql("SELECT count(*) FROM other", "shop") == "0"


def test_a_statement_that_fails_ends_a_restore_with_what_the_server_says(
    server: Server, repository: Repository
) -> None:
    server.sql(SHOP)
    manifest, _ = backup(repository, server.url + "shop")
    server.sql("CREATE USER test@'127.0.0.1' IDENTIFIED BY 's3cret'; GRANT ALL ON copy.* TO test@'127.0.0.1'")
    url = server.url.replace("root", "test:s3cret")
    with pytest.raises(RestoreFailed, match="half way") as caught:
        restore(repository, manifest, url + "copy")  # the definers of its routines are somebody else
    assert caught.value.cause.startswith("ERROR ")
    assert "at line " in caught.value.cause
    assert "INSERT" not in caught.value.cause
    assert "--conflict overwrite" in caught.value.hint
    assert "s3cret" not in str(caught.value) + caught.value.hint


def test_a_dump_that_cannot_be_read_further_is_not_taken_for_a_whole_one(server: Server) -> None:
    def broken() -> Iterator[bytes]:
        yield b"CREATE TABLE t (i INT);\n\nINSERT INTO t VALUES (7)"  # which a client runs at the end too
        until = time.monotonic() + 30
        while server.sql("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'shop'") != "1":
            assert time.monotonic() < until
        raise CorruptedBackup("a chunk is damaged")

    server.sql("CREATE DATABASE shop")
    given: list[int] = []
    asked = MysqlServer(parse_address(server.url), dict(os.environ))
    with pytest.raises(CorruptedBackup, match="damaged"):
        run_client(asked, "shop", broken(), progress=given.append)
    assert server.sql("SELECT * FROM t", "shop") == ""


def test_a_server_that_goes_away_ends_a_restore_with_an_error(server: Server, repository: Repository) -> None:
    server.sql(SHOP + BULK)
    manifest, _ = backup(repository, server.url + "shop")
    gone = False

    def kill(event: Event) -> None:
        nonlocal gone
        if isinstance(event, Progress) and not gone:
            gone = True
            server.kill_others()

    with pytest.raises(RestoreFailed, match="half way") as caught:
        run_mysql_restore(
            repository, manifest, server.url + "copy", RestoreOptions(), environ=dict(os.environ), events=kill
        )
    assert "ERROR 20" in caught.value.cause or "killed" in caught.value.cause


def test_the_plain_files_can_be_restored_and_read_by_the_client(
    server: Server, repository: Repository, tmp_path: Path
) -> None:
    server.sql(SHOP)
    manifest, _ = backup(repository, server.url + "shop")
    run_restore(repository, manifest, tmp_path, RestoreOptions())
    found = next(tmp_path.rglob("database.sql"))
    assert found.stat().st_mode & 0o777 == 0o600
    server.sql("CREATE DATABASE copy")
    server.sql(found.read_text(), "copy")
    assert contents(server, "copy") == contents(server, "shop")


def test_a_dump_that_fails_half_way_leaves_no_snapshot(server: Server, repository: Repository) -> None:
    server.sql(SHOP)
    server.sql("CREATE TABLE t (i INT); CREATE VIEW broken AS SELECT i FROM t; DROP TABLE t", "shop")
    with pytest.raises(DumpFailed, match="mariadb-dump failed") as caught:
        backup(repository, server.url + "shop")
    assert "shop.broken" in caught.value.cause
    assert "view" in caught.value.hint
    assert repository.snapshots.live() == []


@pytest.mark.parametrize(
    ("disturb", "said"),
    [
        ("ALTER TABLE shop.sale ENGINE = InnoDB", "run the same backup again"),
        ("", "net_write_timeout"),
    ],
    ids=["a table is altered", "the connection is lost"],
)
def test_a_dump_that_is_disturbed_fails(server: Server, disturb: str, said: str) -> None:
    server.sql(SHOP + BULK)
    dump = generated(source(server.url + "shop"), b"database.sql").open()
    with closing_reader(dump):
        dump.read(1 << 16)
        if disturb:
            server.sql(disturb)
        else:
            server.kill_others()
        while dump.read(1 << 20):
            pass
        with pytest.raises(DumpFailed) as caught:
            dump.finish()
    assert said in caught.value.hint, caught.value.cause


@pytest.mark.parametrize("one", ["", "shop"], ids=["all databases", "one"])
def test_a_dump_during_which_definitions_change_is_none_to_recover_from(server: Server, one: str) -> None:
    """Rows have one moment, definitions have not: the log behind it would make them a second time."""
    server.sql(SHOP + BULK)
    dump = generated(source(server.url + one), b"database.sql" if one else b"databases.sql").open()
    with closing_reader(dump):
        dump.read(1 << 16)
        server.sql("INSERT INTO sale VALUES (77, 2); CREATE OR REPLACE TABLE other (i INT)", "shop")
        server.sql("CREATE PROCEDURE later() SELECT 1; DROP VIEW cheap; CREATE SEQUENCE number", "shop")
        while dump.read(1 << 20):
            pass
        if one:
            dump.finish()  # nothing can be replayed behind it anyhow
            return
        with pytest.raises(DumpFailed, match="definitions changed") as caught:
            dump.finish()
    assert "procedure shop.later, sequence shop.number, view shop.cheap:" in caught.value.cause
    assert "again" in caught.value.hint


def test_tables_without_transactions_are_named_in_a_warning(server: Server) -> None:
    server.sql("CREATE DATABASE shop; CREATE TABLE shop.old (i INT) ENGINE=MyISAM; CREATE TABLE shop.new (i INT)")
    server.sql("CREATE DATABASE other; CREATE TABLE other.too (i INT) ENGINE=Aria")
    warnings: list[str] = []
    source(server.url + "shop", warnings)
    assert len(warnings) == 1
    assert warnings[0].endswith("shop.old (MyISAM)")


def test_prepared_transactions_are_named_in_a_warning(server: Server) -> None:
    server.sql("CREATE DATABASE shop; CREATE TABLE shop.item (i INT)")
    server.sql("XA START 'left'; INSERT INTO shop.item VALUES (1); XA END 'left'; XA PREPARE 'left'")
    warnings: list[str] = []
    try:
        source(server.url, warnings)
    finally:
        server.sql("XA ROLLBACK 'left'")
    assert ["left; make a dump when they have ended" in warning for warning in warnings] == [True]


def test_a_password_comes_by_the_address_or_the_environment_and_is_not_shown(
    server: Server, repository: Repository
) -> None:
    server.sql(SHOP + BULK)  # so that the dump still runs when it is looked for
    server.sql("CREATE USER test@'127.0.0.1' IDENTIFIED BY 'p@ss:/#'; GRANT ALL ON shop.* TO test@'127.0.0.1'")
    server.sql("GRANT SELECT ON mysql.proc TO test@'127.0.0.1'")
    url = server.url.replace("root", "test") + "shop"
    _, first = backup(repository, url, MYSQL_PWD="p@ss:/#")
    secret = url.replace("test@", "test:p%40ss%3A%2F%23@")
    _, second = backup(repository, secret)
    assert first.files == second.files == 2
    what = source(secret)
    assert not any(b"p%40" in path or b"p@ss" in path for path in what.paths)
    dump = generated(what, b"database.sql").open()
    with closing_reader(dump):
        dump.read(1)
        children = [line for pid in Path("/proc").glob("[0-9]*/cmdline") if b"mariadb-dump" in (line := readable(pid))]
    assert children
    assert not any(b"p@ss" in line or b"p%40" in line for line in children)


def readable(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # a process that is gone by now
        return b""


@pytest.mark.parametrize(
    ("url", "kind", "said"),
    [
        ("mysql://root@127.0.0.1:{free}/shop", SourceUnreachable, "cannot connect"),
        ("mysql://root@nowhere.invalid/shop", SourceUnreachable, "cannot connect"),
        ("mysql://root:s3cret@127.0.0.1:{port}/shop", SourceRefused, "denies access"),
        ("mysql://root@127.0.0.1:{port}/nothing", NotFound, "no database 'nothing'"),
        ("mysql://root@127.0.0.1:{port}/", NotFound, "no database at"),
        ("mysql://h:port/s3cret", InvalidRequest, "cannot be read"),
        ("mysql://h/a/b", InvalidRequest, "cannot be read"),
        ("mysql://h/a%0Ab", InvalidRequest, "cannot be read"),
        ("mysql://h/a?password=s3cret", InvalidRequest, "password cannot stand"),
        ("mysql://h/a?socket=/run/x", InvalidRequest, "a host or a socket"),
    ],
)
def test_what_cannot_be_reached_is_told_without_secrets(
    server: Server, url: str, kind: type[BackstayError], said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        source(url.format(port=server.port, free=free_port()))
    assert caught.value.hint
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"


def test_missing_programs_are_named(server: Server, tmp_path: Path) -> None:
    server.sql(SHOP)
    with pytest.raises(VersionUnsupported, match="need the programs") as caught:
        source(server.url + "shop", PATH=str(tmp_path))
    assert "mariadb-client" in caught.value.hint
    client = next(Path(part, "mariadb") for part in os.environ["PATH"].split(":") if Path(part, "mariadb").exists())
    (tmp_path / "mariadb").symlink_to(client)
    with pytest.raises(VersionUnsupported, match="dumping MariaDB takes mariadb-dump"):
        source(server.url + "shop", PATH=str(tmp_path))


def test_a_server_that_takes_upper_and_lower_case_for_the_same_is_not_overwritten(
    server: Server, repository: Repository
) -> None:
    server.sql("CREATE DATABASE shop; CREATE TABLE shop.item (i INT)")
    server.stop()
    try:
        server.start("--lower-case-table-names=1")
        manifest, _ = backup(repository, server.url + "SHOP")
        assert manifest.paths[0].endswith(b"/shop")
        with pytest.raises(RestoreConflict):
            restore(repository, manifest, server.url + "Shop")
    finally:
        server.stop()
        server.start()


def test_a_server_is_reached_through_its_socket(server: Server, repository: Repository) -> None:
    server.sql("CREATE DATABASE shop; CREATE TABLE shop.item (i INT); INSERT INTO shop.item VALUES (3)")
    through = f"mysql://root@/{{}}?socket={server.place}/socket"
    manifest, _ = backup(repository, through.format("shop"))
    restore(repository, manifest, through.format("copy"))
    assert server.sql("SELECT * FROM copy.item") == "3"


def test_a_server_without_a_binary_log_is_backed_up_without_a_position(server: Server, repository: Repository) -> None:
    server.sql(SHOP)
    server.stop()
    try:
        server.start("--skip-log-bin")
        manifest, _ = backup(repository, server.url + "shop")
    finally:
        server.stop()
        server.start()
    assert set(manifest.consistency) <= {"server_version", "server_id"}
    restore(repository, manifest, server.url + "copy")
    assert contents(server, "copy") == contents(server, "shop")
