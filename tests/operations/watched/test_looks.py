"""A snapshot of watched files looks at little, and misses nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from backstay.errors import BackupFailed, NotFound
from backstay.operations.backup.request import BackupKind
from backstay.sources.changes import Look
from tests.operations.watched.world import World


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
    with World([root], patterns=(b"node_modules", b"*.log"), exclude_caches=True) as world:
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
    with World([root], exclude_caches=True) as world:
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
