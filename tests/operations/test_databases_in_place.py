"""Restores in place of databases: their logs belong to them, and who uses one keeps it."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from backstay.errors import (
    RestoreConflict,
)
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.restore.in_place import restore_in_place
from backstay.operations.restore.in_place_recovery import roll_back_in_place
from backstay.sources.sqlite.source import sqlite_source
from tests.operations.in_place_world import (
    KEEP,
    OVERWRITE,
    InPlaceWorld,
)


def database(path: Path, value: str, *, keep_log: bool = False) -> None:
    """Write a value; with `keep_log` the process ends without folding its log in."""
    words = "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.executescript(sys.argv[2]); "
    script = f"pragma journal_mode=wal; create table if not exists t(v); delete from t; insert into t values('{value}')"
    subprocess.run(
        [sys.executable, "-c", words + ("os._exit(0)" if keep_log else "db.close()"), path, script], check=True
    )


def value_in(path: Path) -> str:
    with closing(sqlite3.connect(path)) as db:
        return str(db.execute("select v from t").fetchone()[0])


@pytest.fixture
def app(world: InPlaceWorld) -> Path:
    """A database that was backed up with one value, and holds another one that is only in its log."""
    path = world.place / "app/app.db"
    path.parent.mkdir()
    database(path, "backed up")
    source = sqlite_source(os.fsencode(path), scratch=world.place)
    made = run_backup(world.repository, source, BackupOptions(host="host")).snapshot
    assert made is not None
    world.manifest = world.repository.snapshots.get(made)
    database(path, "later", keep_log=True)
    return path


def test_a_database_comes_back_without_the_log_of_the_old_one(world: InPlaceWorld, app: Path) -> None:
    (kept,) = restore_in_place(world.repository, world.manifest, replace(KEEP, delete=False)).kept
    assert value_in(app) == "backed up"
    roll_back_in_place(kept)
    assert value_in(app) == "later"


def test_a_database_in_use_is_left_alone(world: InPlaceWorld, app: Path) -> None:
    words = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('select * from t'); "
    words += "print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", words, app], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout is not None
        user.stdout.readline()
        with pytest.raises(RestoreConflict, match="in use"):
            restore_in_place(world.repository, world.manifest, replace(OVERWRITE, delete=False))
        user.communicate(b"\n")
    assert value_in(app) == "later"
