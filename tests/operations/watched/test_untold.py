"""What the kernel does not tell of watched files is looked at."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backstay.sources.inotify import OVERFLOW, Event, Inotify
from tests.operations.watched.world import World


class Overflowing(Inotify):
    """Loses all that happens, once it is told to, and says so as the kernel does."""

    loses = False

    def read(self) -> list[Event]:
        events = super().read()
        if self.loses and events:
            return [Event(-1, OVERFLOW, b"")]
        return events


def test_after_an_overflow_everything_is_looked_at(root: Path) -> None:
    with World([root], notices=Overflowing) as world:
        world.snapshot()
        Overflowing.loses = True
        try:
            (root / "d05").rename(root / "moved")
            (root / "d06/below").rename(root / "d05")
            assert world.journal.stirred() is not None
        finally:
            Overflowing.loses = False
        world.snapshot()
        assert len(world.walked()) > 80
        assert world.shown() == world.fresh()
        (root / "moved/below/file").write_text("changed")
        world.snapshot()
        assert world.walked() == {".", "moved", "moved/below"}
        assert world.shown() == world.fresh()


def test_a_burst_that_fills_the_queue_of_the_kernel_is_in_the_next_snapshot(world: World, root: Path) -> None:
    program = "import sys, pathlib\nfor n in range(20_000): pathlib.Path(sys.argv[1], str(n)).touch()"
    with world.journal._lock:  # nobody reads meanwhile: 60 000 events do not fit
        subprocess.run([sys.executable, "-c", program, root / "d11"], check=True)
    done = world.snapshot()
    assert (done.files, len(world.walked())) == (20_030, 91)


class Full(Inotify):
    """As if this user might watch so many directories."""

    allowed = 5

    def __init__(self) -> None:
        super().__init__()
        self.left = self.allowed

    def watch(self, directory: int) -> int:
        self.left -= 1
        if self.left < 0:
            raise OSError(28, "No space left on device")
        return super().watch(directory)


class Closed(Inotify):
    """As for a user who may pass through the directory above the tests' own, but not list it."""

    place = Path("/")

    def watch(self, directory: int) -> int:
        if self.place.samefile(f"/proc/self/fd/{directory}"):
            raise PermissionError(13, "Permission denied")
        return super().watch(directory)


def test_a_directory_above_that_cannot_be_watched_is_no_reason_to_watch_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Closed, "place", root.parent)
    with World([root], notices=Closed) as world:
        world.snapshot()
        (root / "d20/below/file").write_text("another")
        assert world.journal.stirred() is not None
        world.snapshot()
        assert len(world.walked()) == 3
        assert world.warnings == []
        root.rename(root.parent / "away")
        (root / "anew").mkdir(parents=True)
        world.snapshot()
        assert world.shown() == world.fresh()


def test_too_many_directories_are_told_once_and_looked_at(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with World([root], notices=Full) as world:
        world.snapshot()
        assert len(world.warnings) == 1
        assert "sysctl fs.inotify.max_user_watches=" in world.warnings[0]
        assert not world.journal.sees_everything
        for text in ("one", "another"):
            (root / "d20/below/file").write_text(text)
            world.snapshot()
            assert world.shown() == world.fresh()
        assert world.snapshot().snapshot is None
        monkeypatch.setattr(Full, "allowed", 1000)
        world.watched._checked -= world.pace.check_s
        world.snapshot()
        assert world.journal.sees_everything
        assert len(world.warnings) == 1
        (root / "d20/below/file").write_text("watched")
        world.snapshot()
        assert len(world.walked()) == 3
        assert world.shown() == world.fresh()


def test_where_nothing_can_be_watched_everything_is_looked_at(root: Path) -> None:
    def refuse() -> Inotify:
        raise OSError(24, "Too many open files")

    with World([root], notices=refuse) as world:
        world.snapshot()
        assert "too many open files" in world.warnings[0]
        (root / "d20/below/file").write_text("another")
        world.snapshot()
        assert world.shown() == world.fresh()


def test_a_shared_file_system_is_told_and_looked_at_as_a_whole(root: Path) -> None:
    with World([root], shared=bool) as world:
        world.snapshot()
        assert "others may change unseen" in world.warnings[0]
        (root / "d20/below/file").write_text("another")
        world.snapshot()
        assert len(world.walked()) == 91
        assert world.shown() == world.fresh()


def test_a_file_system_that_is_mounted_or_goes_makes_it_look_at_everything(
    world: World, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounted = (b"36 35 98:0 / %s/d05 rw - ext4 /dev/x rw" % bytes(root),)
    monkeypatch.setattr("backstay.sources.change_journal.mounts_below", lambda _: mounted)
    world.snapshot()
    assert len(world.walked()) == 91
    (root / "d01/new").touch()
    world.snapshot()
    assert len(world.walked()) == 2


class Deaf(Inotify):
    """Tells nothing, like the kernel of writes through memory maps."""

    def read(self) -> list[Event]:
        super().read()
        return []


def test_a_look_at_everything_finds_and_tells_what_was_not_told(root: Path) -> None:
    with World([root], notices=Deaf) as world:
        world.snapshot()
        (root / "d02/below/file").write_text("unseen")
        assert world.snapshot().snapshot is None
        world.watched._checked -= world.pace.check_s
        assert world.snapshot().snapshot is not None
        assert [line.partition(",")[0] for line in world.warnings] == [
            f"the kernel told nothing of a change of {root}/d02/below/file"
        ]
        assert world.shown() == world.fresh()


def test_a_look_at_everything_after_known_changes_tells_nothing(world: World, root: Path) -> None:
    (root / "d02/below/file").write_text("seen")
    (root / "d03/below/file").chmod(0o600)
    os.link(root / "d04/below/file", root / "d05/link")
    world.snapshot()
    with (root / "d04/below/file").open("a") as file:
        file.write("!")
    world.watched._checked -= world.pace.check_s
    world.snapshot()
    assert len(world.walked()) == 91
    assert world.warnings == []
    assert world.shown() == world.fresh()
