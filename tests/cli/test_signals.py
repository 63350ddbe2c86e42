"""Interrupted and cut-off runs: status 130, quiet pipes, and a repository that is good."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

from backstay.cli import backup as cli_backup
from backstay.cli import signals as cli_signals
from backstay.cli.signals import Interrupts
from backstay.core.clock import Clock, SystemClock
from backstay.errors import Interrupted
from backstay.operations.backup import run as run_backup
from backstay.repository.keys.slots import SlotStore
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest, SnapshotStore
from tests.cli.conftest import SOURCE, Account


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("large")
    for number in range(128):
        (place / f"large-{number}").write_bytes(random.Random(number).randbytes(2 << 20))
    return place


@pytest.fixture
def busy(account: Account, large: Path) -> Account:
    """An account with enough to do."""
    for file in large.iterdir():
        (account.documents / file.name).hardlink_to(file)
    return account


def started(account: Account, *argv: object) -> subprocess.Popen[bytes]:
    """The program, once it has begun its operation, which lasts for two seconds at least."""
    run = account.program("--progress", "json", "--limit-upload", "32MiB", *argv)
    assert run.stderr is not None
    while b'"started"' not in run.stderr.readline():
        assert run.poll() is None
    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt(busy: Account, number: signal.Signals) -> None:
    for pause in (0.0, 0.05, 0.2):
        home = busy.root / f"home-{pause}"  # with a repository of its own: what one has sent spares the next work
        home.mkdir()
        busy.environ["HOME"] = str(home)
        busy.run("init")
        run = started(busy, "backup", busy.documents, "--kind", "full")
        time.sleep(pause)
        run.send_signal(number)
        _, err = run.communicate(timeout=60)
        assert run.returncode == 130
        assert b"error: interrupted" in err
        assert b"Traceback" not in err
        assert busy.json("list") == []
        busy.run("verify", "--read-data")
    busy.run("backup", busy.documents)
    busy.run("verify", "--read-data")


@pytest.mark.parametrize("when", ["is committed", "is done", "is told"])
def test_an_interrupt_after_the_commit_is_too_late(
    account: Account, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The snapshot is there: a program that heard of an interruption would take it for missing."""
    place, name = {
        "is committed": (SnapshotStore, "commit"),
        "is done": (Repository, "close"),
        "is told": (cli_backup, "backup_document"),
    }[when]
    step = getattr(place, name)

    def interrupted(*arguments: object) -> object:
        done = step(*arguments)
        signal.raise_signal(signal.SIGINT)
        return done

    account.run("init")
    monkeypatch.setattr(place, name, interrupted)
    told = account.json("backup", account.documents)
    monkeypatch.undo()
    assert [each["id"] for each in account.json("list")] == [told["snapshot"]]


def interrupted_after(monkeypatch: pytest.MonkeyPatch, place: type, name: str) -> None:
    """Ask to stop when a step is done."""
    step = getattr(place, name)

    def interrupted(*arguments: Any, **more: Any) -> object:
        done = step(*arguments, **more)
        signal.raise_signal(signal.SIGINT)
        return done

    monkeypatch.setattr(place, name, staticmethod(interrupted) if name == "create" else interrupted)


@pytest.mark.parametrize("env", [{}, {"BACKSTAY_PASSWORD": "pw"}])
def test_an_interrupt_after_a_repository_was_made_is_too_late(
    account: Account, monkeypatch: pytest.MonkeyPatch, env: dict[str, str]
) -> None:
    """The same command again would find a repository and fail."""
    interrupted_after(monkeypatch, Repository, "create")
    assert account.json("init", env=env)["uuid"]
    assert account.json("list", env=env) == []


@pytest.mark.parametrize("env", [{}, {"BACKSTAY_PASSWORD": "pw"}])
def test_a_first_backup_that_is_interrupted_has_shown_its_recovery_key(
    account: Account, monkeypatch: pytest.MonkeyPatch, env: dict[str, str]
) -> None:
    interrupted_after(monkeypatch, Repository, "create")
    assert "Recovery key:" in account.run("backup", account.documents, env=env, status=130).err
    monkeypatch.undo()
    assert "Recovery key:" not in account.run("backup", account.documents, env=env).err
    assert len(account.json("key", "list", env=env)["slots"]) == 2
    assert len(account.json("list", env=env)) == 1


def test_an_interrupt_after_a_recovery_key_was_made_is_too_late(
    saved: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_after(monkeypatch, SlotStore, "add")
    assert "Recovery key:" in saved.run("key", "recovery").err


def test_a_deletion_that_is_interrupted_tells_what_is_gone_and_can_be_run_again(
    saved: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        saved.backup()
    first, *others = (snapshot["id"] for snapshot in saved.json("list"))
    drop = SnapshotStore.drop

    def interrupted(store: SnapshotStore, ulid: str, reason: str, clock: Clock) -> None:
        signal.raise_signal(signal.SIGINT)
        drop(store, ulid, reason, clock)

    monkeypatch.setattr(SnapshotStore, "drop", interrupted)
    told = saved.json("delete", first, *others, status=130)
    assert told["cause"].endswith(f"deleted before that: {first}")
    assert told["hint"] == f"`backstay delete {' '.join(others)}` deletes the rest"
    assert [snapshot["id"] for snapshot in saved.json("list")] == others

    saved.run("delete", others[0])  # the signal falls into the last one
    monkeypatch.undo()
    again = saved.json("delete", first[:-1], *others)
    assert again == {"deleted": others[1:], "deleted_before": [first, others[0]]}
    assert saved.run("delete", first, first).out == f"snapshot {first} was deleted before\n"
    saved.run("delete", "no-such", status=1)


def test_what_comes_after_the_commit_may_take_long(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store may need long to end a session: the signal that fell into the commit does not cut that off."""
    commit, left = SnapshotStore.commit, list[int]()

    def interrupted(store: SnapshotStore, manifest: Manifest) -> None:
        commit(store, manifest)
        signal.raise_signal(signal.SIGINT)

    def slowly(*_: object) -> None:
        time.sleep(0.3)

    account.run("init")
    monkeypatch.setattr(cli_signals, "GRACE_S", 0.1)
    monkeypatch.setattr(cli_signals, "_leave", lambda number, _: left.append(number))
    monkeypatch.setattr(SnapshotStore, "commit", interrupted)
    monkeypatch.setattr(run_backup, "warn_of_scarce_room", slowly)
    account.run("backup", account.documents)
    assert left == []


def test_the_second_interrupt_stops_at_once(busy: Account) -> None:
    busy.run("init")
    run = started(busy, "backup", busy.documents)
    run.send_signal(signal.SIGSTOP)  # so that it gets both when it goes on
    run.send_signal(signal.SIGINT)
    run.send_signal(signal.SIGCONT)
    time.sleep(0.7)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=60)
    assert run.returncode == 130
    busy.run("verify", "--read-data")


def test_the_second_interrupt_ends_it_also_where_that_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    def leave(status: int) -> NoReturn:
        raise SystemExit(status)

    monkeypatch.setattr("os.write", full)
    monkeypatch.setattr("os._exit", leave)
    with pytest.raises(SystemExit, match="130"):
        cli_signals._leave(signal.SIGINT, None)


def test_an_interrupt_before_anything_has_begun(account: Account) -> None:
    for pause in (0.03, 0.06, 0.1, 0.15):
        run = account.program("list")
        time.sleep(pause)
        run.send_signal(signal.SIGTERM)
        _, err = run.communicate(timeout=60)
        assert run.returncode in (130, 10, -signal.SIGTERM)
        assert b"Traceback" not in err


def test_an_operation_is_interrupted_between_its_steps() -> None:
    interrupts = Interrupts(SystemClock())
    with interrupts.installed(), interrupts.deferred() as stop_if_asked:
        stop_if_asked()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # the same, told twice
        with pytest.raises(Interrupted):
            stop_if_asked()
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_what_has_to_tidy_up_is_not_left_while_it_does() -> None:
    interrupts = Interrupts(SystemClock())
    with interrupts.installed(), interrupts.deferred(tidies=True) as stop_if_asked:
        signal.raise_signal(signal.SIGINT)
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0  # it may be stuck in a step
        with pytest.raises(Interrupted):
            stop_if_asked()
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_outside_of_operations_it_is_interrupted_at_once() -> None:
    with Interrupts(SystemClock()).installed(), pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def test_a_terminal_that_goes_stops_it_gently_unless_that_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with Interrupts(SystemClock()).installed(), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with Interrupts(SystemClock()).installed():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_are_left_alone() -> None:
    interrupts = Interrupts(SystemClock())
    handlers = []

    def work() -> None:
        with interrupts.installed(), interrupts.deferred():
            handlers.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [before]


def test_a_reader_that_leaves_early(account: Account) -> None:
    for number in range(3000):
        (account.documents / f"file-{number}").touch()
    account.run("backup", account.documents)
    run = account.program("ls", "latest", "-R")
    assert run.stdout is not None
    assert run.stdout.readline()
    run.stdout.close()
    run.stdout = None
    _, err = run.communicate(timeout=60)
    assert err == b""
    assert run.returncode == 141


def test_a_full_disk_behind_stdout(saved: Account) -> None:
    with Path("/dev/full").open("wb") as full:
        run = saved.program("list", stdout=full)
        _, err = run.communicate(timeout=60)
    assert run.returncode == 1
    assert b"No space left" in err
    assert b"Traceback" not in err


def in_shell(account: Account, words: str, **env: str) -> subprocess.CompletedProcess[str]:
    environ = {"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"], **account.environ, **env}
    command = f"{sys.executable} -m backstay {words}"
    return subprocess.run(["sh", "-c", command], env=environ, cwd=account.root, capture_output=True, text=True)


@pytest.mark.parametrize("closed", ["2>&-", "<&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_and_not_needed(saved: Account, closed: str) -> None:
    assert in_shell(saved, f"list {closed}", BACKSTAY_REPO=str(saved.repository)).returncode == 12  # nobody to ask
    assert in_shell(saved, f"backup documents --progress json {closed}").returncode == 0
    saved.run("verify", "--read-data")  # nothing that was told went into a file of the repository


def test_a_recovery_key_that_nobody_can_see_is_not_made(saved: Account) -> None:
    before = saved.json("key", "list")
    for closed in ("2>&-", ">&- 2>&-"):
        assert in_shell(saved, f"key recovery {closed}").returncode == 1
    assert saved.json("key", "list") == before


def test_a_result_that_nobody_can_read_is_a_failure(saved: Account) -> None:
    for words in ("cat latest documents/note", "--json list", "--version", "--help"):
        done = in_shell(saved, f"{words} >&-")
        assert done.returncode == 1, words
        assert "cause: it is closed" in done.stderr
    for words in ("--version", "--help"):
        done = in_shell(saved, f"{words} >/dev/full")
        assert done.returncode == 1, words
        assert "cause: No space left on device" in done.stderr


def test_whoever_closes_the_output_of_a_backup_wants_to_hear_nothing(saved: Account) -> None:
    for words in ("backup documents", "prune --keep-last 9"):
        assert in_shell(saved, f"{words} >&-").returncode == 0


@pytest.mark.parametrize("words", ["--help", "--version"])
def test_a_help_whose_reader_has_left(account: Account, words: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    run = account.program(words, stdout=writer)
    os.close(writer)
    _, err = run.communicate(timeout=60)
    assert (run.returncode, err) == (141, b"")
