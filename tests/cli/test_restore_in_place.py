"""restore --in-place from the command line: kept, put back, finished, refused."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from backstay.cli import restore_in_place as in_places
from backstay.operations.restore import in_place
from backstay.operations.restore.switching import Switching
from backstay.sources.switch_calls import SwitchCalls
from backstay.testing import CrashPoint
from tests.cli.conftest import Account


def note(account: Account) -> Path:
    return account.documents / "note"


def test_the_old_state_comes_back(saved: Account) -> None:
    note(saved).write_text("mine\n")
    done = saved.json("restore", "latest", "--in-place", "--conflict", "overwrite", "--keep-old")
    assert (done["replaced"], done["in_place"], done["rolled_back"]) == (1, True, False)
    assert note(saved).read_text() == "a note\n"
    (kept,) = done["kept"]
    shown = saved.run("restore", "--rollback", kept)
    assert "everything is as it was before the restore" in shown.out
    assert note(saved).read_text() == "mine\n"
    assert not Path(kept).exists()


def test_what_is_kept_is_told_with_the_way_back(saved: Account) -> None:
    note(saved).write_text("mine\n")
    done = saved.run("restore", "latest", "--in-place", "--conflict", "overwrite", "--keep-old")
    assert "restore --rollback" in done.out
    assert "1 replaced" in done.out


@pytest.mark.parametrize("when", ["is switched", "is told"])
def test_a_signal_that_finds_it_switched_is_too_late(
    saved: Account, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    place, name = {"is switched": (Switching, "forward"), "is told": (in_places, "_document")}[when]
    step = getattr(place, name)

    def interrupted(*arguments: object) -> object:
        done = step(*arguments)
        signal.raise_signal(signal.SIGINT)
        return done

    note(saved).write_text("mine\n")
    monkeypatch.setattr(place, name, interrupted)
    done = saved.json("restore", "latest", "--in-place", "--conflict", "overwrite", "--keep-old")
    assert (done["replaced"], len(done["kept"])) == (1, 1)
    assert note(saved).read_text() == "a note\n"


def test_a_way_back_tells_what_was_written_since(saved: Account) -> None:
    note(saved).write_text("mine\n")
    done = saved.json("restore", "latest", "--in-place", "--conflict", "overwrite", "--keep-old")
    note(saved).write_text("written since\n")
    shown = saved.run("restore", "--rollback", done["kept"][0])
    assert "but for what is warned of" in shown.out
    assert "note: it changed meanwhile, and is now note.backstay-old" in shown.err
    assert (saved.documents / "note.backstay-old").read_text() == "written since\n"


class StopsAtTheThird(SwitchCalls):
    """Like a process that is killed while it switches."""

    def __init__(self) -> None:
        self.states = 0

    def replace(self, fd: int, old: bytes, new: bytes) -> None:
        self.states += 1
        if self.states > 2:
            raise CrashPoint
        super().replace(fd, old, new)


@pytest.fixture
def stopped(saved: Account, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a restore left that was stopped when everything was switched, but not said to be."""
    note(saved).write_text("mine\n")
    with monkeypatch.context() as patched:
        patched.setattr(in_place, "SwitchCalls", StopsAtTheThird)
        with pytest.raises(CrashPoint):
            saved.run("restore", "latest", "--in-place", "--conflict", "overwrite")
    (left,) = [path for path in saved.root.iterdir() if path.name.startswith(".backstay-restore-")]
    return left


def test_a_restore_that_was_stopped_is_finished(saved: Account, stopped: Path) -> None:
    assert saved.json("restore", "--resume", stopped)["did"] == "finished"
    assert note(saved).read_text() == "a note\n"
    assert not stopped.exists()


def test_a_restore_that_was_stopped_is_undone(saved: Account, stopped: Path) -> None:
    assert saved.json("restore", "--rollback", stopped)["rolled_back"] is True
    assert note(saved).read_text() == "mine\n"


def test_the_next_restore_says_that_it_finished_one(saved: Account, stopped: Path) -> None:
    done = saved.run("restore", "latest", "--in-place", "--conflict", "overwrite")
    assert in_places._TOLD["finished"] in done.out
    assert not stopped.exists()


def test_direct_overwrites_file_by_file(saved: Account) -> None:
    note(saved).write_text("mine\n")
    done = saved.json("restore", "latest", "--in-place", "--direct", "--conflict", "overwrite")
    assert "in_place" not in done
    assert note(saved).read_text() == "a note\n"


@pytest.mark.parametrize(
    "argv",
    [
        ("latest", "--to", "x", "--keep-old"),
        ("latest", "--to", "x", "--direct"),
        ("latest", "--in-place", "--direct", "--keep-old"),
        ("latest", "--in-place", "--conflict", "rename"),
        ("latest", "--rollback", "x"),
        ("--rollback", "x", "--resume", "x"),
        (),
    ],
)
def test_what_does_not_go_together_is_refused(saved: Account, argv: tuple[str, ...]) -> None:
    done = saved.run("restore", *argv, status=2)
    assert "hint:" in done.err


@pytest.mark.parametrize("option", ["--rollback", "--resume"])
def test_a_directory_that_no_restore_keeps_is_told(saved: Account, option: str) -> None:
    done = saved.run("restore", option, saved.documents / "nowhere", status=17)
    assert "is not a directory that a restore keeps" in done.err
    saved.documents.chmod(0o700)
    before = sorted(saved.documents.rglob("*"))
    done = saved.run("restore", option, os.fspath(saved.documents), status=17)
    assert "it has another name" in done.err
    assert sorted(saved.documents.rglob("*")) == before
