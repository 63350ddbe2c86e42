"""`backup PATH --watch` as a program: beside programs that write, and stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.cli.conftest import Account


class Watching:
    """The program; its lines as they come."""

    def __init__(self, account: Account, *more: str) -> None:
        self.run: subprocess.Popen[bytes] = account.program(
            "backup", account.documents, "--watch", "--every", "1s", "--settle", "1s", *more
        )

    def line(self) -> str:
        assert self.run.stdout is not None
        return self.run.stdout.readline().decode()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        self.run.send_signal(number)
        out, err = self.run.communicate(timeout=60)
        return self.run.returncode, out.decode(), err.decode()


@pytest.fixture
def watching(account: Account) -> Iterator[Callable[..., Watching]]:
    """Starts the program; one that a test leaves running is killed."""
    account.run("init")
    started: list[Watching] = []

    def start(*more: str) -> Watching:
        started.append(Watching(account, *more))
        return started[-1]

    yield start
    for one in started:
        one.run.kill()
        one.run.communicate()


def restored(account: Account, name: str) -> str:
    to = account.root / "out"
    account.run("restore", f"latest:{account.documents}", "--to", to, "--conflict", "overwrite")
    return (to / name).read_text()


def test_each_change_becomes_a_snapshot_until_it_is_stopped(
    account: Account, watching: Callable[..., Watching]
) -> None:
    run = watching()
    assert " snapshot " in run.line()
    (account.root / "new").mkdir()
    (account.root / "new" / "deep").write_text("new")
    (account.root / "new").rename(account.documents / "new")  # at once, however slow this machine is
    assert " snapshot " in run.line()
    (account.documents / "letters").rename(account.documents / "old letters")
    assert " snapshot " in run.line()
    status, out, err = run.stop(signal.SIGINT)
    assert (status, out, err) == (0, "stopped after 3 snapshots\n", "")
    assert len(account.json("list")) == 3
    assert restored(account, "new/deep") == "new"
    assert restored(account, "old letters/letter-1.txt").startswith("Dear reader 1")


def test_a_file_that_is_written_to_without_pause_is_backed_up_all_the_same(
    account: Account, watching: Callable[..., Watching]
) -> None:
    run = watching("--settle", "1h", "--within", "2s", "--json")
    stop = threading.Event()

    def write(file: Path) -> None:
        for number in count():
            if stop.wait(0.05):
                return
            file.write_text(f"line {number}\n")

    writer = threading.Thread(target=write, args=(account.documents / "log",))
    writer.start()
    try:
        while len(account.json("list")) < 3:
            assert run.run.poll() is None
    finally:
        stop.set()
        writer.join()
    status, out, _ = run.stop()
    assert status == 0
    assert json.loads(out)["snapshots"] >= 3
    assert "log" in account.run("ls", f"latest:{account.documents}").out


@pytest.mark.parametrize(
    "argv",
    [
        ("--settle", "5s"),
        ("--watch", "--dry-run"),
        ("--watch", "--within", "0"),
        ("--watch", "--source", "sqlite:///x.db", "--check-every", "1h"),
    ],
)
def test_what_does_not_go_together_is_refused(account: Account, argv: tuple[str, ...]) -> None:
    paths = () if "--source" in argv else (account.documents,)
    account.run("backup", *paths, *argv, status=2)


def test_a_watch_of_nothing_ends(account: Account) -> None:
    account.run("init")
    done = account.run("backup", account.root / "nowhere", "--watch", status=1)
    assert "none of the paths to back up exists" in done.err


def test_a_backup_of_what_has_not_changed_can_be_left_out(account: Account) -> None:
    first = account.backup("--skip-if-unchanged")
    (account.root / "beside").touch()  # which changes the time of the directory above
    again = account.backup("--skip-if-unchanged")
    assert (again["snapshot"], again["parent"]) == (None, first["snapshot"])
    told = account.run("backup", account.documents, "--skip-if-unchanged").out
    assert f"nothing has changed since snapshot {first['snapshot']}" in told
    (account.documents / "note").chmod(0o600)
    assert account.backup("--skip-if-unchanged")["snapshot"] is not None
    assert len(account.json("list")) == 2
    account.run("gc")
    account.run("verify", "--read-data")
