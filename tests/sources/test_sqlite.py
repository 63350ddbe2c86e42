"""SQLite databases: copied consistently while they are written, put back only where nobody uses them."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from backstay.errors import (
    BackstayError,
    CorruptedSource,
    InsufficientSpace,
    InvalidRequest,
    NotFound,
    RestoreConflict,
    SourceRefused,
)
from backstay.operations.backup.run import BackupOptions, BackupResult, run_backup
from backstay.operations.restore.run import RestoreOptions, RestoreResult, run_restore
from backstay.operations.restore.sqlite import restore_sqlite
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.sources.sqlite.checking import check
from backstay.sources.sqlite.database import opened, path_of
from backstay.sources.sqlite.source import sqlite_source
from backstay.sources.sqlite.target import make_way
from backstay.storage.memory import MemoryStorage
from backstay.trust.secrets import Secret
from tests.synced import Synced

WRITER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=30)
n = 0
while True:
    n += 1
    db.execute("update t set a = a + ?, b = b - ? where id % 7 = ?", (n, n, n % 7))
    db.commit()
    if n == 3:
        print("writing", flush=True)
"""
HOLDER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
for command in sys.argv[2:]:
    db.execute(command).fetchall()
print("holding", flush=True)
sys.stdin.read()
"""
DIES = "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute(sys.argv[2]); db.commit(); os._exit(0)"


@pytest.fixture
def repository() -> Iterator[Repository]:
    with Repository.create(MemoryStorage(), Secret.new_keyfile()) as repository:
        yield repository


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A database in a directory of its own."""
    place = tmp_path / "data/app.db"
    place.parent.mkdir()
    fill(place)
    return place


def fill(place: Path, *, journal: str = "wal", rows: int = 5000, page: int = 4096) -> None:
    with closing(sqlite3.connect(place)) as db:
        db.execute(f"pragma page_size={page}")
        db.execute(f"pragma journal_mode={journal}")
        db.execute("create table t(id integer primary key, a int, b int, pad text)")
        rows_ = ((i, -i, f"{i} {'p' * 150}") for i in range(rows))
        db.executemany("insert into t(a, b, pad) values(?, ?, ?)", rows_)
        db.commit()


@contextmanager
def other_process(script: str, *arguments: object) -> Iterator[None]:
    """Another program, once it said that it is where it should be."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline()
        try:
            yield
        finally:
            running.kill()


def backup(repository: Repository, file: Path, scratch: Path, *, patience_s: float = 30) -> BackupResult:
    scratch.mkdir(exist_ok=True)
    source = sqlite_source(os.fsencode(file), scratch=scratch, patience_s=patience_s)
    return run_backup(repository, source, BackupOptions(host="host"))


def newest(repository: Repository) -> Manifest:
    return repository.snapshots.live()[-1]


def restore(repository: Repository, to: Path, **options: object) -> RestoreResult:
    return run_restore(repository, newest(repository), to, RestoreOptions(**options))  # type: ignore[arg-type]


def balance(file: Path) -> tuple[int, int]:
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        found: tuple[int, int] = db.execute("select sum(a) + sum(b), count(*) from t").fetchone()
        return found


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_a_copy_under_a_writer_is_of_one_moment(
    repository: Repository, tmp_path: Path, file: Path, journal: str
) -> None:
    file.unlink()
    fill(file, journal=journal)
    with other_process(WRITER, file):
        result = backup(repository, file, tmp_path / "scratch")
        assert (result.kind, result.files, result.files_new, result.errors) == ("full", 1, 1, ())
    restore(repository, tmp_path / "out")
    out = Path(f"{tmp_path}/out{file}")
    assert balance(out) == (0, 5000)
    assert result.bytes_scanned == result.bytes_read == out.stat().st_size == newest(repository).stats.bytes
    assert not list((tmp_path / "scratch").iterdir())


def test_the_file_keeps_its_attributes_and_chunks_are_pages(repository: Repository, tmp_path: Path, file: Path) -> None:
    file.chmod(0o640)
    os.utime(file, ns=(1_600_000_000_000_000_000,) * 2)
    file.parent.chmod(0o750)
    before = file.read_bytes()
    backup(repository, file, tmp_path / "scratch")
    assert file.read_bytes() == before
    manifest = newest(repository)
    assert manifest.paths == (os.fsencode(file),)
    assert manifest.chunkers["pages"].name == "fixed"
    assert manifest.chunkers["pages"].average == 16 << 10
    restore(repository, tmp_path / "out")
    out = Path(f"{tmp_path}/out{file}")
    info = out.stat()
    assert (info.st_mode & 0o777, info.st_mtime_ns) == (0o640, 1_600_000_000_000_000_000)
    assert out.parent.stat().st_mode & 0o777 == 0o750


def test_a_second_backup_stores_the_pages_that_changed(repository: Repository, tmp_path: Path, file: Path) -> None:
    first = backup(repository, file, tmp_path / "scratch")
    with closing(sqlite3.connect(file)) as db:
        db.execute("update t set pad = 'other' where id = 77")
        db.commit()
    second = backup(repository, file, tmp_path / "scratch")
    assert second.bytes_added < first.bytes_added / 5
    assert second.kind == "full"


def test_pages_larger_than_chunks_make_larger_chunks(repository: Repository, tmp_path: Path, file: Path) -> None:
    file.unlink()
    fill(file, page=65536, journal="delete")
    backup(repository, file, tmp_path / "scratch")
    assert newest(repository).chunkers["pages"].average == 65536


def test_what_is_no_good_database_makes_no_snapshot(repository: Repository, tmp_path: Path, file: Path) -> None:
    nothing, text, torn = (file.with_name(name) for name in ("nothing.db", "text.db", "torn.db"))
    text.write_text("no database at all" * 400)
    data = bytearray(file.read_bytes())
    for page in range(20, 60):
        data[page * 4096 : page * 4096 + 600] = b"\xff" * 600
    torn.write_bytes(data)
    expected = {nothing: NotFound, text: CorruptedSource, torn: CorruptedSource, file.parent: InvalidRequest}
    for place, kind in expected.items():
        with pytest.raises(kind, match=place.name):
            backup(repository, place, tmp_path / "scratch")
    assert not nothing.exists()
    assert not repository.snapshots.live()
    assert not list((tmp_path / "scratch").iterdir())


def reversed_order(one: str, other: str) -> int:
    return (one < other) - (one > other)


def test_what_only_the_program_of_a_database_knows_is_not_needed(
    repository: Repository, tmp_path: Path, file: Path
) -> None:
    with closing(sqlite3.connect(file)) as db, db:
        db.create_collation("own order", reversed_order)
        db.create_function("own", 1, abs, deterministic=True)
        db.execute(
            'CREATE TABLE words (word TEXT COLLATE "own order" PRIMARY KEY, n INT CHECK (own(n) > 0)) WITHOUT ROWID'
        )
        db.execute("CREATE INDEX by_n ON words (own(n), word)")
        db.executemany("INSERT INTO words VALUES (?, ?)", [(f"{n}", -n) for n in range(1, 300)])
    backup(repository, file, tmp_path / "scratch")
    restore(repository, tmp_path / "out")
    out = f"{tmp_path}/out{file}"
    with closing(sqlite3.connect(out)) as db:
        found = check(db, thorough=True, limit=5)
        assert (found.is_ok, set(found.lacked)) == (True, {"collation own order", "function own"})
        assert "indexes not compared: SQLite has no " in str(found)
    with closing(sqlite3.connect(out)) as db:
        db.create_collation("own order", reversed_order)
        db.create_function("own", 1, abs, deterministic=True)
        assert str(check(db, thorough=True, limit=5)) == "ok"


def test_what_sqlite_cannot_do_is_not_told_as_a_lack_of_rights(file: Path) -> None:
    with (
        pytest.raises(SourceRefused, match="cannot do this") as refused,
        opened(os.fsencode(file), "ro", patience_s=1) as db,
    ):
        db.execute("SELECT nobody_knows(1)")
    assert "no such function: nobody_knows" in refused.value.cause
    assert "its own program" in refused.value.hint


def test_a_database_that_stays_locked_is_told(repository: Repository, tmp_path: Path, file: Path) -> None:
    file.unlink()
    fill(file, journal="delete")
    with other_process(HOLDER, file, "begin exclusive"), pytest.raises(SourceRefused, match="locked"):
        backup(repository, file, tmp_path / "scratch", patience_s=0.3)
    assert not repository.snapshots.live()


def test_a_database_that_is_locked_before_it_is_copied_is_told(
    repository: Repository, tmp_path: Path, file: Path
) -> None:
    file.unlink()
    fill(file, journal="delete")
    source = sqlite_source(os.fsencode(file), scratch=tmp_path, patience_s=0.3)
    with other_process(HOLDER, file, "begin exclusive"), pytest.raises(SourceRefused, match="locked"):
        run_backup(repository, source, BackupOptions(host="host"))
    assert not repository.snapshots.live()


def test_too_little_space_is_told_before_anything_is_copied(
    repository: Repository, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InsufficientSpace, match="space"):
        backup(repository, file, tmp_path / "scratch")


def test_what_a_killed_backup_left_is_removed(repository: Repository, tmp_path: Path, file: Path) -> None:
    left = tmp_path / "scratch/backstay-sqlite-killed"
    left.mkdir(parents=True)
    (left / "copy.db").write_bytes(b"x")
    backup(repository, file, tmp_path / "scratch")
    assert not left.exists()


@pytest.mark.parametrize(
    ("journal", "command"), [("wal", "select 1 from t"), ("delete", "select 1 from t"), ("delete", "begin exclusive")]
)
def test_a_database_in_use_is_not_replaced(
    repository: Repository, tmp_path: Path, file: Path, journal: str, command: str
) -> None:
    file.unlink()
    fill(file, journal=journal)
    backup(repository, file, tmp_path / "scratch")
    with closing(sqlite3.connect(file)) as db:
        db.execute("delete from t")
        db.commit()
    before = file.read_bytes()
    with other_process(HOLDER, file, command), pytest.raises(RestoreConflict, match="in use"):
        restore(repository, Path("/"), in_place=True, conflict="overwrite")
    assert file.read_bytes() == before
    restore(repository, Path("/"), in_place=True, conflict="overwrite")
    assert balance(file) == (0, 5000)


def test_an_old_log_is_not_replayed_into_a_restored_database(
    repository: Repository, tmp_path: Path, file: Path
) -> None:
    backup(repository, file, tmp_path / "scratch")
    subprocess.run([sys.executable, "-c", DIES, file, "update t set a = 1"], check=True)
    log = file.with_name("app.db-wal")
    assert log.stat().st_size
    with pytest.raises(RestoreConflict):
        restore(repository, Path("/"), in_place=True)
    assert log.stat().st_size
    restore(repository, Path("/"), in_place=True, conflict="overwrite")
    assert [item.name for item in file.parent.iterdir()] == ["app.db"]
    assert balance(file) == (0, 5000)


def test_a_log_without_its_database_is_in_the_way_too(repository: Repository, tmp_path: Path, file: Path) -> None:
    backup(repository, file, tmp_path / "scratch")
    subprocess.run([sys.executable, "-c", DIES, file, "update t set a = 1"], check=True)
    file.unlink()
    with pytest.raises(RestoreConflict, match="log"):
        restore(repository, Path("/"), in_place=True)
    restore(repository, Path("/"), in_place=True, conflict="overwrite")
    assert balance(file) == (0, 5000)


def test_the_log_of_a_damaged_database_goes_with_it(repository: Repository, tmp_path: Path, file: Path) -> None:
    backup(repository, file, tmp_path / "scratch")
    file.write_bytes(b"damaged" * 1000)
    file.with_name("app.db-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(504))
    restore(repository, Path("/"), in_place=True, conflict="overwrite")
    assert [item.name for item in file.parent.iterdir()] == ["app.db"]
    assert balance(file) == (0, 5000)


def test_a_restore_that_fails_leaves_the_old_database_with_all_its_transactions(
    repository: Repository, tmp_path: Path, file: Path
) -> None:
    backup(repository, file, tmp_path / "scratch")
    subprocess.run([sys.executable, "-c", DIES, file, "update t set a = a + 1, b = b - 1"], check=True)
    for info in list(repository.backend.list("packs/")):
        repository.backend.delete(info.name)
    assert restore(repository, Path("/"), in_place=True, conflict="overwrite").errors
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("select a from t where id = 1").fetchone() == (1,)


@pytest.mark.parametrize("conflict", ["newer", "rename"])
def test_a_database_is_not_replaced_by_halves(
    repository: Repository, tmp_path: Path, file: Path, conflict: str
) -> None:
    backup(repository, file, tmp_path / "scratch")
    with pytest.raises(InvalidRequest, match="database"):
        restore(repository, Path("/"), in_place=True, conflict=conflict)


def test_a_database_can_be_restored_under_another_name(repository: Repository, tmp_path: Path, file: Path) -> None:
    backup(repository, file, tmp_path / "scratch")
    target = tmp_path / "other.db"
    manifest = newest(repository)

    def again(**options: object) -> bool:
        given = RestoreOptions(**options)  # type: ignore[arg-type]
        return restore_sqlite(repository, manifest, os.fsencode(target), given) is not None

    assert again()
    assert balance(target) == (0, 5000)
    assert not again()
    with closing(sqlite3.connect(target)) as db:
        db.execute("delete from t")
        db.commit()
    with pytest.raises(RestoreConflict):
        again()
    assert again(conflict="overwrite")
    assert balance(target) == (0, 5000)


@pytest.mark.parametrize("content", [b"the only key of a repository\n", b"SQLite format 2\0", b"x", bytes(4096)])
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_restored_database_replaces_no_file_that_is_none(
    repository: Repository, tmp_path: Path, file: Path, content: bytes, dry_run: bool
) -> None:
    backup(repository, file, tmp_path / "scratch")
    target = tmp_path / "key"
    target.write_bytes(content)
    target.with_name("key-wal").write_bytes(b"log")
    options = RestoreOptions(conflict="overwrite")
    with pytest.raises(RestoreConflict, match="is no SQLite database"):
        restore_sqlite(repository, newest(repository), os.fsencode(target), options, dry_run=dry_run)
    assert target.read_bytes() == content
    assert target.with_name("key-wal").read_bytes() == b"log"


def test_a_restored_database_replaces_an_empty_file(repository: Repository, tmp_path: Path, file: Path) -> None:
    backup(repository, file, tmp_path / "scratch")
    target = tmp_path / "other.db"
    target.touch()
    restore_sqlite(repository, newest(repository), os.fsencode(target), RestoreOptions(conflict="overwrite"))
    assert balance(target) == (0, 5000)


def test_addresses_name_absolute_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.db").symlink_to("real.db")
    assert path_of("sqlite:////a/b.db") == path_of("sqlite:///a/b.db") == b"/a/b.db"
    assert path_of("sqlite:link.db") == os.fsencode(tmp_path / "real.db")
    for wrong in ("sqlite:", "sqlite://", "sqlite:///", "sqlite://host/a.db"):
        with pytest.raises(InvalidRequest, match="names no file"):
            path_of(wrong)


def test_an_unfinished_transaction_is_told_and_not_rolled_back(
    repository: Repository, tmp_path: Path, file: Path
) -> None:
    file.unlink()
    fill(file, journal="delete")
    half = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('pragma cache_size=1');"
        "db.execute('pragma cache_spill=1'); db.execute('update t set a = 1'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", half, file], check=True)
    before = file.read_bytes()
    assert file.with_name("app.db-journal").stat().st_size
    with pytest.raises(BackstayError) as caught:
        backup(repository, file, tmp_path / "scratch")
    assert "sqlite3" in caught.value.hint
    assert file.read_bytes() == before


def test_a_generated_column_that_is_not_null_needs_no_function_of_the_program(tmp_path: Path) -> None:
    place = tmp_path / "own.db"
    with closing(sqlite3.connect(place)) as session, session:
        session.create_function("f", 1, str.upper, deterministic=True)
        session.execute("CREATE TABLE t(a TEXT, g TEXT GENERATED ALWAYS AS (f(a)) VIRTUAL NOT NULL)")
        session.executemany("INSERT INTO t(a) VALUES (?)", [("x",), ("y",)])
    with closing(sqlite3.connect(place)) as session:
        found = check(session, thorough=True, limit=5)
    assert (found.is_ok, found.lacked) == (True, ("function f",))


@pytest.mark.crash
def test_a_restored_database_is_durable_before_the_log_of_the_old_one_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the log is gone, durably, before the restored database may have its name."""
    for name in ("new", "db", "db-wal", "db-shm"):
        (tmp_path / name).write_bytes(name.encode())
    file, directory = os.open(tmp_path / "new", os.O_RDWR), os.open(tmp_path, os.O_RDONLY)
    synced = Synced(tmp_path, monkeypatch)
    try:
        make_way(file, directory, b"db")
    finally:
        os.close(file)
        os.close(directory)
    first, *removed, last = synced.calls
    assert (first, last) == ("fsync new", "fsync .")
    assert {"unlink db-wal", "unlink db-shm"} <= set(removed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db", "new"]
