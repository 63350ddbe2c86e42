"""Restores in place of databases: their logs belong to them, and who uses one keeps it."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from backstay.errors import InsufficientSpace, RestoreConflict
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.restore import in_place, switched_databases
from backstay.operations.restore.in_place import restore_in_place
from backstay.operations.restore.in_place_recovery import resume_in_place, roll_back_in_place
from backstay.sources.sqlite.source import sqlite_source
from backstay.sources.switch_calls import SwitchCalls
from backstay.testing import CrashPoint
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


@contextmanager
def in_use(path: Path) -> Iterator[None]:
    """Another process has it open meanwhile."""
    words = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('select * from t'); "
    words += "print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", words, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout is not None
        user.stdout.readline()
        yield
        user.communicate(b"\n")


def test_a_database_in_use_is_left_alone(world: InPlaceWorld, app: Path) -> None:
    with in_use(app), pytest.raises(RestoreConflict, match="in use"):
        restore_in_place(world.repository, world.manifest, replace(OVERWRITE, delete=False))
    assert value_in(app) == "later"


@pytest.fixture
def kept(world: InPlaceWorld, app: Path) -> Path:
    """The directory of a restore that keeps the old database."""
    (found,) = restore_in_place(world.repository, world.manifest, replace(KEEP, delete=False)).kept
    return found


def beside(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.iterdir())


def test_a_restored_database_in_use_stays_and_its_old_state_can_be_had_back_later(app: Path, kept: Path) -> None:
    with in_use(app), pytest.raises(RestoreConflict, match="in use"):
        roll_back_in_place(kept)
    assert value_in(app) == "backed up"
    assert resume_in_place(kept).did == "kept"
    roll_back_in_place(kept)
    assert value_in(app) == "later"


def test_what_came_into_the_log_of_a_restored_database_stays_with_it(app: Path, kept: Path) -> None:
    database(app, "since", keep_log=True)
    problems = roll_back_in_place(kept).problems
    assert {problem.path for problem in problems} == {os.fsencode(app), os.fsencode(f"{app}-shm")}
    assert beside(app) == ["app.db", "app.db-shm", "app.db-shm.backstay-old", "app.db.backstay-old"]
    assert (value_in(app), value_in(app.with_name("app.db.backstay-old"))) == ("later", "since")


def test_a_log_that_cannot_be_brought_into_its_database_gets_another_name(
    app: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: bytes) -> None:
        raise InsufficientSpace("no room for the log")

    monkeypatch.setattr(switched_databases, "settle", full)
    database(app, "since", keep_log=True)
    problems = roll_back_in_place(kept).problems
    assert {problem.path for problem in problems} == {os.fsencode(f"{app}{suffix}") for suffix in ("-wal", "-shm")}
    assert beside(app) == ["app.db", "app.db-shm", "app.db-shm.backstay-old", "app.db-wal.backstay-old"]
    assert value_in(app) == "later"


class Writing(SwitchCalls):
    """A program writes to the database, and ends badly, when the state gets a name; then the switch may fail."""

    def __init__(self, app: Path, state: bytes, *, fails: bool = False) -> None:
        self._app, self._state, self._fails = app, state, fails

    def replace(self, fd: int, old: bytes, new: bytes) -> None:
        super().replace(fd, old, new)
        if old == self._state:
            database(self._app, "meanwhile", keep_log=True)

    def sync(self, fd: int) -> None:
        if self._fails:
            self._fails = False
            database(self._app, "meanwhile", keep_log=True)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        super().sync(fd)


def test_a_switch_that_fails_gives_the_old_database_no_log_of_the_new_one(world: InPlaceWorld, app: Path) -> None:
    calls = Writing(app, b"", fails=True)
    result = restore_in_place(world.repository, world.manifest, replace(OVERWRITE, delete=False), calls=calls)
    assert result.rolled_back
    assert (value_in(app), value_in(app.with_name("app.db.backstay-old"))) == ("later", "meanwhile")


def test_a_log_that_comes_before_the_switch_is_not_replayed_into_the_restored_database(
    world: InPlaceWorld, app: Path
) -> None:
    calls = Writing(app, b"state.switching")
    restore_in_place(world.repository, world.manifest, replace(OVERWRITE, delete=False), calls=calls)
    assert value_in(app) == "backed up"


def test_an_old_database_that_was_used_after_a_crash_gives_the_restored_one_no_log(
    world: InPlaceWorld, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stops(SwitchCalls):
        def exchange(self, one_fd: int, one: bytes, other_fd: int, other: bytes) -> None:
            raise CrashPoint

    monkeypatch.setattr(in_place, "undo", lambda *_: ())
    with pytest.raises(CrashPoint):
        restore_in_place(world.repository, world.manifest, replace(OVERWRITE, delete=False), calls=Stops())
    database(app, "meanwhile", keep_log=True)
    (place,) = app.parent.glob(".backstay-restore-*")
    with in_use(app), pytest.raises(RestoreConflict, match="in use"):
        resume_in_place(place)
    assert resume_in_place(place).did == "finished"
    assert value_in(app) == "backed up"
