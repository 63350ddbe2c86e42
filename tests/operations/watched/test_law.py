"""Whatever changes: the last snapshot of watched files is what a backup of everything would be."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.operations.watched.world import World


def entries(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if not path.is_symlink() or path.exists())


def directories(root: Path) -> list[Path]:
    return [root, *(path for path in entries(root) if path.is_dir() and not path.is_symlink())]


def files(root: Path) -> list[Path]:
    return [path for path in entries(root) if path.is_file() and not path.is_symlink()]


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def write(root: Path, one: int, other: int) -> None:
    places = directories(root)
    place = places[one % len(places)] / f"file{other % 3}"
    if not place.is_dir():
        place.write_bytes(b"x" * (one % 50))


def append(root: Path, one: int, other: int) -> None:
    if found := files(root):
        with found[one % len(found)].open("ab") as file:
            file.write(b"%d" % other)


def make(root: Path, one: int, other: int) -> None:
    places = directories(root)
    (places[one % len(places)] / f"dir{other % 3}" / "deep").mkdir(parents=True, exist_ok=True)


def move(root: Path, one: int, other: int) -> None:
    if not (found := entries(root)):
        return
    thing = found[one % len(found)]
    places = [place for place in directories(root) if not place.is_relative_to(thing)]
    target = places[other % len(places)] / thing.name
    if not thing.is_relative_to(target):
        if target.exists() or target.is_symlink():
            remove(target)
        thing.rename(target)


def delete(root: Path, one: int, other: int) -> None:
    del other
    if found := entries(root):
        remove(found[one % len(found)])


def mode(root: Path, one: int, other: int) -> None:
    if found := [*directories(root), *files(root)]:
        found[one % len(found)].chmod(0o700 | other % 64)


def attribute(root: Path, one: int, other: int) -> None:
    if found := [*directories(root), *files(root)]:
        with suppress(OSError):  # not every file system has them
            os.setxattr(found[one % len(found)], "user.test", b"%d" % other)


def link(root: Path, one: int, other: int) -> None:
    places, found = directories(root), files(root)
    target = places[other % len(places)] / f"link{one % 3}"
    if found and not target.exists() and not target.is_symlink():
        os.link(found[one % len(found)], target)


def symlink(root: Path, one: int, other: int) -> None:
    places = directories(root)
    target = places[one % len(places)] / f"symlink{other % 2}"
    if not target.is_symlink() and not target.exists():
        target.symlink_to(places[other % len(places)])


def swap(root: Path, one: int, other: int) -> None:
    """Two directories take each other's names."""
    found = [place for place in directories(root) if place != root]
    if len(found) < 2:
        return
    first, second = found[one % len(found)], found[other % len(found)]
    if not first.is_relative_to(second) and not second.is_relative_to(first):
        aside = root / "aside"
        first.rename(aside)
        second.rename(first)
        aside.rename(second)


def anew(root: Path, one: int, other: int) -> None:
    """The watched directory itself goes, and another one comes."""
    del one, other
    shutil.rmtree(root)
    (root / "dir1").mkdir(parents=True)


Action = Callable[[Path, int, int], None]
ACTIONS: list[Action] = [write, append, make, move, delete, mode, attribute, link, symlink, swap, anew]


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 99), st.integers(0, 99)), max_size=8),
        min_size=1,
        max_size=5,
    )
)
def test_the_last_snapshot_is_what_a_backup_of_everything_is(rounds: list[list[tuple[Action, int, int]]]) -> None:
    with TemporaryDirectory() as place:
        root = Path(place) / "root"
        for number in range(3):
            (root / f"dir{number}" / "deep").mkdir(parents=True)
            (root / f"dir{number}" / "file0").write_bytes(b"0")
        with World([root]) as world:
            world.snapshot()
            for actions in rounds:
                for action, one, other in actions:
                    action(root, one, other)
                world.snapshot()
                assert world.shown() == world.fresh()
            assert world.warnings == []
