"""Marks of SQLite databases: another one after each transaction, the same while nothing happens, and no lock taken."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from backstay.errors import InvalidRequest, NotFound
from backstay.sources.sqlite.changes import Mark, mark_of, uses_log
from backstay.sources.sqlite.copying import DatabaseCopy

TRANSACTIONS = 200


@pytest.fixture(params=["wal", "delete", "truncate", "persist"])
def journal(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def file(tmp_path: Path, journal: str) -> Path:
    path = tmp_path / "app.db"
    with closing(connect(path)) as db:
        db.execute(f"pragma journal_mode={journal}")
        db.execute("create table t(id integer primary key, a int)")
        db.execute("insert into t values(1, 0)")
    return path


@pytest.fixture
def db(file: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(file)) as connection:
        yield connection


def connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, timeout=0)
    db.execute("pragma synchronous=off")
    return db


def mark(path: Path) -> Mark:
    return mark_of(os.fsencode(path))


def test_each_transaction_changes_it_however_fast_they_follow(file: Path, db: sqlite3.Connection) -> None:
    """Also within one tick of the clock that stamps files."""
    seen = {mark(file)}
    for number in range(TRANSACTIONS):
        db.execute("update t set a = ? where id = 1", (number + 1,))
        seen.add(mark(file))
    assert len(seen) == TRANSACTIONS + 1


def test_a_transaction_within_one_tick_of_the_clock_of_files_changes_it(file: Path, db: sqlite3.Connection) -> None:
    db.execute("update t set a = 1")
    files = [path for path in (file, file.with_name("app.db-wal")) if path.exists()]
    ticks = {path: path.stat().st_mtime_ns for path in files}
    before = mark(file)
    db.execute("update t set a = 2")
    for path, tick in ticks.items():
        os.utime(path, ns=(tick, tick))
    assert mark(file) != before


@pytest.mark.parametrize("journal", ["wal"], indirect=True)
def test_a_checkpoint_changes_nothing(file: Path, db: sqlite3.Connection) -> None:
    db.execute("update t set a = 1")
    before, written = mark(file), file.stat().st_mtime_ns
    db.execute("pragma wal_checkpoint(passive)")
    assert file.stat().st_mtime_ns != written
    assert mark(file) == before


def test_nothing_changes_it_while_nothing_happens(file: Path, db: sqlite3.Connection) -> None:
    db.execute("update t set a = 5")
    before = mark(file)
    db.execute("select * from t").fetchall()
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as reader:
        reader.execute("select * from t").fetchall()
    db.execute("begin immediate")
    db.execute("rollback")
    assert mark(file) == before


def test_our_own_copy_changes_nothing(file: Path, tmp_path: Path) -> None:
    before = mark(file)
    copy = DatabaseCopy(os.fsencode(file), scratch=tmp_path / "scratch", patience_s=1)
    copy.finish()
    assert mark(file) == before


def test_no_writer_is_in_the_way_or_kept_waiting(file: Path, db: sqlite3.Connection) -> None:
    db.execute("begin exclusive")
    db.execute("update t set a = 7")
    mark(file)
    db.execute("commit")
    assert mark(file)


@pytest.mark.parametrize("journal", ["wal"], indirect=True)
def test_a_large_open_transaction_in_the_log_is_no_change(file: Path, db: sqlite3.Connection) -> None:
    db.execute("update t set a = 1")
    before = mark(file)
    db.execute("pragma cache_size=5")
    db.execute("begin")
    db.executemany("insert into t(a) values(?)", ((number,) for number in range(20_000)))
    assert mark(file) == before
    db.execute("commit")
    assert mark(file) != before


def test_another_file_in_its_place_is_a_change(file: Path, tmp_path: Path) -> None:
    before = mark(file)
    other = tmp_path / "other.db"
    other.write_bytes(file.read_bytes())
    other.replace(file)
    assert mark(file) != before


def test_what_is_not_there_or_no_file(file: Path, tmp_path: Path, journal: str) -> None:
    assert uses_log(os.fsencode(file)) == (journal == "wal")
    with pytest.raises(NotFound):
        mark(tmp_path / "nothing")
    with pytest.raises(InvalidRequest):
        mark(tmp_path)
    (tmp_path / "empty").write_bytes(b"")
    assert mark(tmp_path / "empty")
