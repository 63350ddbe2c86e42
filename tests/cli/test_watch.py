"""`backup --watch` as a program: beside a writer, with the database away, stopped and killed."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.conftest import Account


@pytest.fixture
def file(account: Account) -> Path:
    path = account.root / "app.db"
    with closing(connect(path)) as db:
        db.execute("pragma journal_mode=wal")
        db.execute("create table t(a int)")
        db.execute("insert into t values(0)")
    account.run("init")
    return path


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, timeout=0)


class Watching:
    """The program; its lines as they come."""

    def __init__(self, account: Account, file: Path, *more: str) -> None:
        self.run: subprocess.Popen[bytes] = account.program(
            "backup", "--source", f"sqlite://{file}", "--watch", "--every", "1s", *more
        )

    def line(self) -> str:
        assert self.run.stdout is not None
        return self.run.stdout.readline().decode()

    def told(self, part: str) -> list[str]:
        """What it says to people, up to a line with these words."""
        assert self.run.stderr is not None
        lines = []
        for line in self.run.stderr:
            lines.append(line.decode().rstrip("\n"))
            if part in lines[-1]:
                return lines
        raise AssertionError(f"it ended without a word of {part!r}: {lines}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        self.run.send_signal(number)
        out, err = self.run.communicate(timeout=60)
        return self.run.returncode, out.decode(), err.decode()


@pytest.fixture
def watching(account: Account, file: Path) -> Iterator[Callable[..., Watching]]:
    """Starts the program; one that a test leaves running is killed."""
    started: list[Watching] = []

    def start(*more: str) -> Watching:
        started.append(Watching(account, file, *more))
        return started[-1]

    yield start
    for one in started:
        one.run.kill()
        one.run.communicate()


def last_value(account: Account, to: Path) -> int:
    account.run("restore", "latest", "--to", to)
    with closing(connect(next(to.rglob("app.db")))) as db:
        assert db.execute("pragma integrity_check").fetchone() == ("ok",)
        return int(db.execute("select a from t").fetchone()[0])


def test_each_change_becomes_a_snapshot_until_it_is_stopped(
    account: Account, file: Path, watching: Callable[..., Watching]
) -> None:
    run = watching()
    assert " snapshot " in run.line()
    with closing(connect(file)) as db:
        for value in (1, 2):
            db.execute("update t set a = ?", (value,))  # nobody waits: the timeout is 0
            assert " snapshot " in run.line()
        time.sleep(1.2)  # nothing changes, nothing is made
        status, out, err = run.stop()
    assert (status, err) == (0, "")
    assert out == "stopped after 3 snapshots\n"
    assert len(account.json("list")) == 3
    assert last_value(account, account.root / "out") == 2


def test_a_database_that_is_away_is_told_once_and_backed_up_when_it_is_back(
    account: Account, file: Path, watching: Callable[..., Watching]
) -> None:
    with closing(connect(file)) as db:
        db.execute("pragma journal_mode=delete")
    run = watching()
    assert " snapshot " in run.line()
    file.rename(away := file.with_name("away.db"))
    told = run.told("there is no database ")
    with closing(connect(away)) as db:
        db.execute("update t set a = 7")
    away.rename(file)
    assert " snapshot " in run.line()
    status, _, err = run.stop()
    assert status == 0
    told += err.splitlines()
    assert "WAL mode" in told[0]  # programs would wait less
    assert [line.partition(str(file))[0] for line in told[1:]] == [
        "warning: there is no database ",
        "warning: it works again",
    ]
    assert last_value(account, account.root / "out") == 7


def test_one_that_was_killed_leaves_a_good_repository_and_database(
    account: Account, file: Path, watching: Callable[..., Watching]
) -> None:
    run = watching()
    run.line()
    with closing(connect(file)) as db:
        db.execute("update t set a = 3")
        time.sleep(0.9)  # perhaps in the middle of a copy
        assert run.stop(signal.SIGKILL)[0] == -signal.SIGKILL
        db.execute("update t set a = 4")
    account.run("verify", "--read-data")
    before = len(account.json("list"))  # two, if it was not in the middle
    run = watching("--json")
    until = time.monotonic() + 60
    while len(account.json("list")) == before:
        assert time.monotonic() < until
        time.sleep(0.1)
    status, out, _ = run.stop()
    assert status == 0
    assert json.loads(out)["snapshots"] == 1
    assert last_value(account, account.root / "out") == 4


@pytest.mark.parametrize(
    "argv",
    [
        ("--source", "sqlite:///nowhere.db", "--every", "5s"),
        ("--source", "postgresql://x/y", "--watch"),
        ("--source", "sqlite:///x.db", "--watch", "--dry-run"),
        ("--source", "sqlite:///x.db", "--watch", "--every", "0"),
        ("--source", "sqlite:///x.db", "--watch", "--every", "5m"),
        ("--source", "mysql://x/y", "--watch"),
    ],
)
def test_what_cannot_be_watched_is_refused(account: Account, argv: tuple[str, ...]) -> None:
    account.run("backup", *argv, status=2)
