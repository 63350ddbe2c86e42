"""Watched files: each snapshot is what a backup of everything would be, and looks at little."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.errors import BackupFailed, NotFound
from backstay.operations.backup.request import BackupKind
from backstay.operations.backup.watching import watch
from backstay.operations.backup.watching_files import Pace
from backstay.sources.changes import Look
from backstay.sources.inotify import OVERFLOW, Event, Inotify
from backstay.testing import FakeClock
from tests.operations.watched_world import World

# -- the law


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


# -- what is looked at


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for number in range(30):
        (root / f"d{number:02}" / "below" / "deep").mkdir(parents=True)
        (root / f"d{number:02}" / "below" / "file").write_text("as it was")
    return root


@pytest.fixture
def world(root: Path) -> Iterator[World]:
    with World([root]) as world:
        world.snapshot()
        yield world


def test_only_what_changed_and_the_way_to_it_is_opened(world: World, root: Path) -> None:
    assert len(world.walked()) == 1 + 3 * 30
    (root / "d07/below/deep/new").write_text("new")
    done = world.snapshot()
    assert (done.files_new, done.files, done.dirs) == (1, 31, 90 + len(root.parts))
    assert world.walked() == {".", "d07", "d07/below", "d07/below/deep"}
    assert world.shown() == world.fresh()


def test_what_is_kept_is_copied_in_parts(world: World, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        (root / "d01" / "below" / f"more{number}").mkdir()
    world.snapshot()
    monkeypatch.setattr("backstay.repository.trees.stat_stream._PART", 100)
    (root / "d29/new").touch()
    (root / "d02").rename(root / "d30")
    done = world.snapshot()
    assert (done.files, done.dirs, done.bytes_scanned) == (31, 130 + len(root.parts), 30 * len("as it was"))
    assert world.walked() == {".", "d29", "d30", "d30/below", "d30/below/deep"}
    assert world.shown() == world.fresh()


def test_nothing_changed_makes_no_snapshot(world: World, root: Path) -> None:
    with (root / "d03/below/file").open("ab"):
        pass
    assert world.journal.stirred() is not None
    assert world.snapshot().snapshot is None
    (root / "d03/below/file").write_text("another")
    assert world.snapshot().snapshot is not None
    assert world.shown() == world.fresh()


def test_what_changes_while_a_snapshot_is_made_is_in_the_next(root: Path) -> None:
    with World([root]) as world:
        world.snapshot()
        opened = world.journal.opened

        def meanwhile(fd: int, path: bytes, *, device: int, named: frozenset[bytes], leads: bool) -> None:
            opened(fd, path, device=device, named=named, leads=leads)
            if path.endswith(b"d00/below"):
                (root / "d00/again").write_text("behind the walk")
                (root / "d29/below/file").write_text("before it, where it will not look")

        (root / "d00/below/deep/new").touch()
        world.journal.opened = meanwhile  # type: ignore[method-assign]
        world.snapshot()
        world.journal.opened = opened  # type: ignore[method-assign]
        assert world.journal.stirred() is not None
        world.snapshot()
        assert world.shown() == world.fresh()


def test_a_failed_backup_forgets_nothing(world: World, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(manifest: object) -> None:
        raise BackupFailed("the store is away")

    (root / "d01/below/file").write_text("changed")
    with monkeypatch.context() as patch:
        patch.setattr(world.repository.snapshots, "commit", fail)
        with pytest.raises(BackupFailed):
            world.snapshot()
    world.snapshot()
    assert world.shown() == world.fresh()


def test_a_snapshot_that_another_program_made_is_built_upon_with_a_look_at_everything(world: World, root: Path) -> None:
    from backstay.operations.backup.request import BackupOptions
    from backstay.operations.backup.run import run_backup

    run_backup(world.repository, world.source(), BackupOptions(host="host", name="watched"))
    (root / "d01/below/file").write_text("changed")
    world.snapshot()
    assert len(world.walked()) == 91
    (root / "d01/below/file").write_text("once more")
    world.snapshot()
    assert len(world.walked()) == 3
    assert world.shown() == world.fresh()


def test_what_is_excluded_is_no_reason_and_is_not_watched(root: Path) -> None:
    (root / "node_modules/x").mkdir(parents=True)
    (root / "cache").mkdir()
    (root / "cache/CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55")
    with World([root], patterns=(b"node_modules", b"*.log")) as world:
        world.snapshot()
        (root / "node_modules/x/y").touch()
        (root / "d00/program.log").write_text("a line")
        (root / "cache/thing").write_text("a thing")
        assert world.journal.stirred() is None
        (root / "d00/program.txt").write_text("a line")
        assert world.journal.stirred() is not None
        world.snapshot()
        assert world.shown() == world.fresh()


def test_a_tag_that_goes_while_it_is_read_marks_nothing(root: Path) -> None:
    (tag := root / "d00/CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55")
    with World([root]) as world:
        world.snapshot()
        tag.unlink()
        assert world.journal.stirred() is not None
        world.journal.is_cache(bytes(tag.parent))  # by a walk that read it a moment before
        world.snapshot()
        (tag.parent / "new").touch()
        assert world.journal.stirred() is not None


def test_what_others_do_in_the_directories_above_is_no_reason(world: World, root: Path) -> None:
    (root.parent / "other").mkdir()
    assert world.journal.stirred() is None
    shutil.rmtree(root)
    assert world.journal.stirred() is not None
    with pytest.raises(NotFound):
        world.snapshot()
    (root / "anew").mkdir(parents=True)
    world.snapshot()
    assert world.shown() == world.fresh()


def test_a_single_file_is_watched(tmp_path: Path) -> None:
    file = tmp_path / "one"
    file.write_text("1")
    with World([file]) as world:
        world.snapshot()
        (tmp_path / "two").write_text("2")
        assert world.journal.stirred() is None
        file.write_text("another")
        assert world.journal.stirred() is not None
        world.snapshot()
        assert world.shown() == world.fresh()


def test_what_cannot_be_read_is_told_once_and_tried_each_time(root: Path) -> None:
    (root / "d00/secret").mkdir()
    with World([root]) as world:
        opened = os.open

        def refuse(path: object, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if path == b"secret":
                raise PermissionError(13, "Permission denied")
            return opened(path, flags, mode, dir_fd=dir_fd)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", refuse)
            for number in range(3):
                (root / "d29" / str(number)).touch()
                assert len(world.snapshot().errors) == 1
        assert world.warnings == [f"{root}/d00/secret: permission denied"]
        (root / "d29/last").touch()
        assert world.snapshot().errors == ()
        assert world.shown() == world.fresh()


def test_a_file_that_could_not_be_read_is_in_the_first_snapshot_after_it_can_be(root: Path) -> None:
    (root / "d00/closed").write_text("not yet")
    with World([root]) as world:
        opened = os.open

        def refuse(path: object, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if path == b"closed":
                raise PermissionError(13, "Permission denied")
            return opened(path, flags, mode, dir_fd=dir_fd)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "open", refuse)
            assert len(world.snapshot().errors) == 1
        (root / "d29/last").touch()
        assert world.snapshot().errors == ()
        assert world.shown() == world.fresh()


def test_a_link_to_a_file_where_nothing_else_happens_is_seen_there_too(world: World, root: Path) -> None:
    os.link(root / "d04/below/file", root / "d20/link")
    world.snapshot()
    assert world.shown() == world.fresh()
    (root / "d20/link").write_text("through one name")
    world.snapshot()
    assert world.shown() == world.fresh()
    (root / "d20/link").unlink()
    world.snapshot()
    assert world.shown() == world.fresh()


def test_what_was_moved_away_is_watched_no_longer(world: World, root: Path) -> None:
    (root / "d04").rename(away := root.parent / "away")
    world.snapshot()
    (away / "below/file").write_text("elsewhere")
    assert world.journal.stirred() is None
    away.rename(root / "d03/back")
    world.snapshot()
    (root / "d03/back/below/file").write_text("back")
    world.snapshot()
    assert world.walked() == {".", "d03", "d03/back", "d03/back/below"}
    assert world.shown() == world.fresh()


def test_a_directory_that_is_in_two_places_at_once_is_looked_at_in_both(world: World, root: Path) -> None:
    """As a file system does that is mounted twice: the kernel knows one directory, and tells of one."""
    with world.journal._lock:
        fd = os.open(root / "d01/below", os.O_RDONLY)
        try:
            for place in (b"d01/below", b"d02/below"):
                path = bytes(root) + b"/" + place
                world.journal.opened(fd, path, device=os.fstat(fd).st_dev, named=frozenset(), leads=False)
        finally:
            os.close(fd)
        view = world.journal.begin()
    looks = [view.look(bytes(root) + b"/" + place) for place in (b"d01", b"d01/below", b"d02", b"d03")]
    assert looks == [Look.ALL, Look.ALL, Look.NOTHING, Look.NOTHING]


def test_a_directory_that_goes_where_nothing_is_watched_is_not_known_any_more(world: World, root: Path) -> None:
    """As one does that a walk had just opened when the directory above it was moved away."""
    (gone := root.parent / "aside").mkdir()
    path = bytes(root) + b"/d01/moved/aside"
    fd = os.open(gone, os.O_RDONLY)
    world.journal.opened(fd, path, device=os.fstat(fd).st_dev, named=frozenset(), leads=False)
    os.close(fd)
    assert world.journal.begin().look(path) is Look.NOTHING
    gone.rmdir()
    assert world.journal.begin().look(path) is Look.ALL


def test_of_two_directories_at_one_path_the_one_seen_last_is_watched(world: World, root: Path) -> None:
    path = bytes(root) + b"/d01/moved"
    for name in ("first", "last"):
        (root.parent / name).mkdir()
        fd = os.open(root.parent / name, os.O_RDONLY)
        world.journal.opened(fd, path, device=os.fstat(fd).st_dev, named=frozenset(), leads=False)
        os.close(fd)
    (root.parent / "first/file").touch()
    assert world.journal.stirred() is None
    (root.parent / "last/file").touch()
    assert world.journal.stirred() is not None


def test_where_a_directory_with_links_was_is_not_looked_at_any_more(world: World, root: Path) -> None:
    os.link(root / "d04/below/file", root / "d04/below/link")
    world.snapshot()
    (root / "d04/below").rename(root.parent / "away")
    world.snapshot()
    assert world.journal.tells_all
    (root / "d20/new").touch()
    world.snapshot()
    assert world.walked() == {".", "d20"}


@pytest.mark.parametrize("kind", ["full", "incremental", "differential"])
def test_each_kind_of_snapshot_holds_all_changes(root: Path, kind: BackupKind) -> None:
    with World([root], kind=kind) as world:
        kinds = [world.snapshot().kind]
        for number in range(3):
            (root / f"d0{number}/below/file").write_text(f"{number}. change")
            kinds.append(world.snapshot().kind)
            assert world.shown() == world.fresh()
            with (root / "d20/below/file").open("ab"):  # a reason, but no change
                pass
            assert world.snapshot().snapshot is None
        (root / "d00/below/file").write_text("as it was")
        world.snapshot()
        assert world.shown() == world.fresh()
    assert kinds == ["full", *["differential" if kind == "differential" else "incremental"] * 3]


# -- when


def test_it_waits_until_nothing_changes_but_not_for_ever(root: Path) -> None:
    clock = FakeClock()

    def change() -> None:
        (root / "d00/file").write_text(str(clock.monotonic()))
        assert world.journal.stirred() is not None

    def is_due() -> bool:
        return world.watched.mark() != mark

    with World([root], clock=clock, pace=Pace(every_s=10, settle_s=2, within_s=60, check_s=3600)) as world:
        mark = world.watched.mark()
        world.snapshot()
        clock.sleep(1000)
        assert not is_due()
        change()
        assert not is_due()
        clock.sleep(2)
        assert is_due()
        mark = world.watched.mark()
        world.snapshot()
        change()
        clock.sleep(9)
        assert not is_due()  # one in ten seconds
        clock.sleep(1)
        assert is_due()
        mark = world.watched.mark()
        world.snapshot()
        for _ in range(60):
            change()
            assert not is_due()
            clock.sleep(1)
        assert is_due()
        mark = world.watched.mark()
        world.snapshot()
        clock.sleep(3600)
        assert is_due()  # a look at everything


def test_where_not_everything_is_told_it_looks_as_often_as_it_would_wait(root: Path) -> None:
    clock = FakeClock()
    with World([root], clock=clock, shared=bool) as world:
        mark = world.watched.mark()
        world.snapshot()
        clock.sleep(59)
        assert world.watched.mark() == mark
        clock.sleep(1)
        assert world.watched.mark() != mark
        assert world.snapshot().snapshot is None


def test_a_path_that_is_not_there_is_looked_for_as_often_as_it_would_wait(root: Path, tmp_path: Path) -> None:
    clock = FakeClock()
    (other := tmp_path / "other").mkdir()
    with World([root, other], clock=clock) as world:
        world.snapshot()
        other.rmdir()
        assert world.snapshot().snapshot is not None
        for _ in range(2):
            mark = world.watched.mark()
            clock.sleep(59)
            assert world.watched.mark() == mark
            clock.sleep(1)
            assert world.watched.mark() != mark
            assert world.snapshot().snapshot is None
        (other / "back").mkdir(parents=True)
        clock.sleep(60)
        world.watched.mark()
        assert world.snapshot().snapshot is not None
        assert world.shown() == world.fresh()


def test_a_signal_ends_it_in_the_middle_of_a_backup(root: Path) -> None:
    with World([root]) as world:
        world.stopped = lambda: bool(world.events)
        result = watch(world.watched, world.stopped, every_s=1, clock=world.clock, made=lambda _: None)
        assert (result.snapshots, list(world.repository.snapshots.live())) == (0, [])


# -- what the kernel does not tell


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
