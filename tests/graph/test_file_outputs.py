"""Outputs as real files: all are switched or none, whatever goes wrong and wherever a crash comes."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backstay.errors import InsufficientSpace, OutputsBusy, RestoreConflict, RestoreFailed
from backstay.graph.anchored import Anchored
from backstay.graph.file_outputs import FileOutputs
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node
from backstay.graph.regeneration import plan_regeneration, regenerate
from backstay.graph.switching import JOURNAL
from backstay.testing import FakeClock
from tests.graph.worlds import CAPABILITY, World, actions, result

NAMES = ("raw", "clean", "model")


@pytest.fixture
def world() -> World:
    """Three nodes in a row, the first two in directories, and one whose output is no file."""
    world = World()
    world.add("raw", path="data/raw.csv")
    world.add("clean", ["raw"], path="data/deep/clean.csv")
    world.add("model", ["clean"], path="model.bin")
    world.add("note", ["model"])
    return world


@pytest.fixture
def place(world: World, tmp_path: Path) -> Path:
    """A directory in which all files are right."""
    place = tmp_path / "out"
    assert world.restore(FileOutputs(place, world.values)).ok
    return place


def files(place: Path) -> dict[str, bytes]:
    """All files but those of Backstay."""
    found = (path.relative_to(place) for path in place.rglob("*") if path.is_file())
    return {str(path): (place / path).read_bytes() for path in found if path.parts[0] != ".backstay"}


def right(world: World) -> dict[str, bytes]:
    return {world.graph[name].metadata.path or "": world.value(name) for name in NAMES}


def written(path: Path) -> tuple[int, int, int]:
    """The inode and the times that a write changes; reading changes the time of access, so it is left out."""
    info = path.stat()
    return info.st_ino, info.st_mtime_ns, info.st_ctime_ns


def test_files_come_into_an_empty_directory(world: World, place: Path) -> None:
    assert files(place) == right(world)
    assert not (place / ".backstay").exists()


def test_only_files_that_are_wrong_are_written(world: World, place: Path) -> None:
    (place / "data/raw.csv").write_bytes(b"changed")
    (place / "model.bin").unlink()
    untouched = written(place / "data/deep/clean.csv")
    report = world.restore(FileOutputs(place, world.values), preserve_history=False)
    assert actions(report) == {"raw": "restored", "clean": "reused", "model": "restored", "note": "reused"}
    assert files(place) == right(world)
    assert written(place / "data/deep/clean.csv") == untouched
    assert not (place / ".backstay").exists()
    assert not world.made


def test_without_reading_only_missing_files_and_wrong_sizes_are_found(world: World, place: Path) -> None:
    (place / "data/raw.csv").write_bytes(b"x" * (place / "data/raw.csv").stat().st_size)
    (place / "model.bin").unlink()
    report = world.restore(FileOutputs(place, world.values), validate_before_restore=False)
    assert actions(report) == {"raw": "reused", "clean": "reused", "model": "restored", "note": "reused"}


def test_a_value_that_the_repository_lost_comes_back_from_its_file(world: World, place: Path) -> None:
    expected = dict(world.values.data)
    world.lose("clean")
    report = world.restore(FileOutputs(place, world.values))
    assert actions(report)["clean"] == "restored"
    assert "the repository has lost it" in result(report, "clean").reason
    assert world.values.data == expected
    assert not world.made


def test_a_value_whose_pack_is_lost_comes_back_from_its_file(world: World, place: Path) -> None:
    world.values.torn.add(world.key("clean"))
    report = world.restore(FileOutputs(place, world.values))
    assert actions(report)["clean"] == "restored"
    assert "the repository has lost it" in result(report, "clean").reason
    assert not world.values.torn
    assert not world.made


@pytest.mark.parametrize("read", [True, False])
def test_a_good_file_stands_in_for_a_value_that_breaks_off(world: World, place: Path, read: bool) -> None:
    world.values.torn.add(world.key("raw"))
    world.values.unavailable = world.values.missing  # type: ignore[method-assign]  # as with a pack that is damaged
    world.lose("clean")
    (place / "data/deep/clean.csv").unlink()
    report = world.restore(FileOutputs(place, world.values), validate_before_restore=read)
    assert actions(report) == {"raw": "reused", "clean": "recomputed", "model": "reused", "note": "reused"}
    assert files(place) == right(world)


@pytest.mark.parametrize("there", [True, False])
def test_a_value_that_breaks_off_is_recomputed_where_its_file_is_not_good_either(
    world: World, place: Path, there: bool
) -> None:
    world.values.torn.add(world.key("clean"))
    file = place / "data/deep/clean.csv"
    size = file.stat().st_size
    file.unlink()
    if there:
        file.write_bytes(b"x" * size)
    report = world.restore(FileOutputs(place, world.values))
    assert actions(report)["clean"] == "recomputed"
    assert files(place) == right(world)


def test_everything_is_restored_anew_also_where_only_the_file_is_good(world: World, place: Path) -> None:
    world.values.torn.add(world.key("clean"))
    report = world.restore(FileOutputs(place, world.values), strategy="full")
    assert actions(report) == dict.fromkeys((*NAMES, "note"), "restored")
    assert files(place) == right(world)
    assert not world.values.torn


def test_what_is_lost_in_both_is_recomputed_from_whichever_is_good(world: World, place: Path) -> None:
    expected = right(world)
    world.lose("raw", "clean")
    (place / "data/deep/clean.csv").write_bytes(b"bad")
    report = world.restore(FileOutputs(place, world.values))
    assert actions(report) == {"raw": "restored", "clean": "recomputed", "model": "reused", "note": "reused"}
    assert files(place) == expected == right(world)


def test_a_whole_directory_comes_back(world: World, place: Path) -> None:
    expected = right(world)
    for path in (place / "data/deep/clean.csv", place / "data/raw.csv", place / "model.bin"):
        path.unlink()
    (place / "data/deep").rmdir()
    (place / "data").rmdir()
    place.rmdir()
    world.lose("raw")
    assert world.restore(FileOutputs(place, world.values)).ok
    assert files(place) == expected
    assert world.made == ["raw"]


def test_a_restore_that_fails_leaves_all_files_as_they_were(world: World, place: Path) -> None:
    world.lose("model")
    for name in ("data/raw.csv", "model.bin"):
        (place / name).write_bytes(b"bad")
    before = files(place)
    world.recomputers.recomputes("join")(lambda _, __: b"wrong")
    report = world.restore(FileOutputs(place, world.values))
    assert actions(report) == {"raw": "restored", "clean": "reused", "model": "failed", "note": "reused"}
    assert files(place) == before
    assert not (place / ".backstay").exists()


def test_a_plan_touches_nothing(world: World, place: Path) -> None:
    (place / "model.bin").unlink()
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    plan = plan_regeneration(world.graph, FileOutputs(place, world.values), world.options())
    assert {node.id: node.action for node in plan.nodes if node.action != "reuse"} == {"model": "restore"}
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


# -- history


def test_replaced_files_are_kept_as_long_as_the_policy_says(world: World, place: Path) -> None:
    clock = FakeClock()

    def spoil_and_restore(data: bytes, **policy: Any) -> None:
        clock.advance(86400)
        (place / "model.bin").write_bytes(data)
        assert world.restore(FileOutputs(place, world.values, clock=clock), **policy).ok

    def kept() -> list[bytes]:
        return [path.read_bytes() for path in sorted((place / ".backstay").rglob("model.bin"))]

    for number in range(4):
        spoil_and_restore(b"old %d" % number, max_snapshots=2)
    assert kept() == [b"old 2", b"old 3"]
    spoil_and_restore(b"old 4", ttl_days=1.5)
    assert kept() == [b"old 3", b"old 4"]
    spoil_and_restore(b"old 5", preserve_history=False)
    assert kept() == [b"old 3", b"old 4"]
    assert files(place) == right(world)


def test_a_file_keeps_its_permissions(world: World, place: Path) -> None:
    (place / "model.bin").write_bytes(b"bad")
    (place / "model.bin").chmod(0o640)
    assert world.restore(FileOutputs(place, world.values)).ok
    assert (place / "model.bin").stat().st_mode & 0o777 == 0o640


# -- crashes


class Crash(BaseException):
    """The machine stops here."""


class Stopping:
    """Counts what changes the directory, and stops at one of these steps for good."""

    def __init__(
        self, patch: pytest.MonkeyPatch, at: int, error: type[BaseException] = Crash, *, for_good: bool = True
    ) -> None:
        self.count, self.at, self.error, self.dead, self.for_good = 0, at, error, False, for_good
        for name in ("move", "link", "unlink", "sync"):
            patch.setattr(Anchored, name, self._guarded(getattr(Anchored, name)))

    def _guarded(self, step: Any) -> Any:
        def guarded(anchored: Anchored, *arguments: Any) -> None:
            if self.dead:
                raise self.error(5, "Input/output error")
            self.count += 1
            if self.count == self.at:
                self.dead = self.for_good
                raise self.error(5, "Input/output error")
            step(anchored, *arguments)

        return guarded


def spoil(place: Path) -> dict[str, bytes]:
    (place / "data/raw.csv").write_bytes(b"bad")
    (place / "data/deep/clean.csv").unlink()
    (place / "model.bin").write_bytes(b"bad too")
    return files(place)


def steps(world: World, place: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        stopping = Stopping(patch, 0)
        assert world.restore(FileOutputs(place, world.values)).ok
    return stopping.count


@pytest.mark.crash
def test_after_a_crash_at_any_step_the_next_restore_finishes_or_undoes_it(world: World, place: Path) -> None:
    spoil(place)
    total = steps(world, place)
    assert total >= 10
    decided = []
    for at in range(1, total + 1):
        old = spoil(place)
        with pytest.MonkeyPatch.context() as patch:
            Stopping(patch, at)
            with pytest.raises(Crash):
                crash(world, FileOutputs(place, world.values))
        outputs = FileOutputs(place, world.values)
        outputs.begin(keep_history=True, most=None, ttl_days=None)  # which is what the next restore does first
        outputs.rollback()
        assert files(place) in (old, right(world)), f"a mixture after a crash at step {at}"
        decided.append(files(place) == right(world))
        assert not (place / JOURNAL).exists()
        assert world.restore(FileOutputs(place, world.values)).ok
        assert files(place) == right(world)
    assert decided == sorted(decided), "before the journal the old state, from then on the new one"
    assert {True, False} == set(decided)


def crash(world: World, outputs: FileOutputs) -> None:
    """A restore whose process ends where it crashes: nothing tidies up, and the kernel lets go of the lock."""
    leave, outputs._leave = outputs._leave, outputs._release  # type: ignore[method-assign]
    try:
        world.restore(outputs)
    finally:
        outputs._leave = leave  # type: ignore[method-assign]
        outputs._release()


@pytest.mark.crash
def test_a_step_that_fails_puts_all_old_files_back(world: World, place: Path) -> None:
    spoil(place)
    total = steps(world, place)
    outcomes = []
    for at in range(1, total + 1):
        old = spoil(place)
        with pytest.MonkeyPatch.context() as patch:
            Stopping(patch, at, OSError, for_good=False)
            with suppress(RestoreFailed):
                world.restore(FileOutputs(place, world.values))
        now = files(place)
        assert now in (old, right(world)), f"a mixture after a failure at step {at}"
        outcomes.append(now == old)
        assert not (place / JOURNAL).exists() or at >= total - 1
        assert world.restore(FileOutputs(place, world.values)).ok
        assert files(place) == right(world)
    assert outcomes.count(True) >= total - 3, "only the very last steps come too late to undo anything"


@pytest.mark.crash
def test_a_disk_that_takes_nothing_any_more_loses_no_file(world: World, place: Path) -> None:
    spoil(place)
    total = steps(world, place)
    for at in range(1, total + 1):
        old = spoil(place)
        with pytest.MonkeyPatch.context() as patch:
            Stopping(patch, at, OSError)
            with suppress(RestoreFailed):
                world.restore(FileOutputs(place, world.values))
        outputs = FileOutputs(place, world.values)
        outputs.begin(keep_history=True, most=None, ttl_days=None)
        outputs.rollback()
        assert files(place) in (old, right(world)), f"a mixture after a failure at step {at}"
        assert not (place / JOURNAL).exists()
        assert world.restore(FileOutputs(place, world.values)).ok


@pytest.mark.crash
def test_a_crash_while_files_are_put_back_ends_in_the_old_state(world: World, place: Path) -> None:
    at = 0
    while True:
        at += 1
        spoil(place)
        (place / "model.bin").unlink()
        (place / "model.bin").mkdir()  # the last of the files cannot be switched
        old = files(place)
        with pytest.MonkeyPatch.context() as patch:
            stopping = Stopping(patch, at)
            with pytest.raises((Crash, RestoreFailed)):
                crash(world, FileOutputs(place, world.values))
        outputs = FileOutputs(place, world.values)
        if (place / JOURNAL).exists() and json.loads((place / JOURNAL).read_text())["state"] == "switch":
            with pytest.raises(RestoreFailed, match="cut short"):  # decided, but the directory is still in the way
                outputs.begin(keep_history=True, most=None, ttl_days=None)
            (place / "model.bin").rmdir()
            outputs.begin(keep_history=True, most=None, ttl_days=None)
            assert files(place) == right(world)
        else:
            outputs.begin(keep_history=True, most=None, ttl_days=None)
            assert files(place) == old
            (place / "model.bin").rmdir()
        outputs.rollback()
        if not stopping.dead:
            break
        assert world.restore(FileOutputs(place, world.values)).ok
    assert at > 10


# -- bad directories


def test_two_restores_into_one_directory_do_not_meet(world: World, place: Path) -> None:
    first = FileOutputs(place, world.values)
    first.begin(keep_history=False, most=None, ttl_days=None)
    with pytest.raises(OutputsBusy):
        world.restore(FileOutputs(place, world.values))
    first.rollback()
    assert world.restore(FileOutputs(place, world.values)).ok


def test_a_link_in_the_way_leads_nowhere(world: World, place: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (place / "data/raw.csv").unlink()
    (place / "data/deep/clean.csv").unlink()
    (place / "data/deep").rmdir()
    (place / "data").rmdir()
    (place / "data").symlink_to(outside)
    with pytest.raises(RestoreFailed):
        world.restore(FileOutputs(place, world.values))
    assert list(outside.rglob("*")) == [outside / "deep"]
    (place / "data").unlink()
    (place / "model.bin").unlink()
    (place / "model.bin").symlink_to(outside / "model.bin")
    assert world.restore(FileOutputs(place, world.values)).ok
    assert files(place) == right(world)
    assert not (place / "model.bin").is_symlink()


def test_a_file_where_a_directory_has_to_be_leaves_all_as_it_was_and_the_next_restore_works(
    world: World, place: Path
) -> None:
    before = files(place)
    outputs = FileOutputs(place, world.values)
    outputs.begin(keep_history=True, most=None, ttl_days=None)
    for path in ("new", "new/below"):  # as if somebody made the first meanwhile
        about = world.graph["model"].metadata.changed(path=path)
        outputs.restore(world.graph["model"].changed(metadata=about))
    with pytest.raises(RestoreFailed, match="the old ones are back"):
        outputs.commit()
    assert files(place) == before
    assert not (place / ".backstay").exists()
    (place / "model.bin").unlink()
    assert world.restore(FileOutputs(place, world.values)).ok
    assert files(place) == right(world)


def test_files_of_other_graphs_stay_out_of_the_directory(world: World, place: Path) -> None:
    theirs = World(world.values, MetadataGraph("theirs"))
    theirs.add("table", path="model.bin")
    theirs.add("lost", path="lost.bin")
    parts = [theirs.value("table"), theirs.value("lost")]
    key = world.values.store(world.output("made", parts))
    about: Any = {"capability": CAPABILITY, "path": "made.bin"}
    deps = ("graph:theirs#table", "graph:theirs#lost")
    world.graph.add(Node(id="made", hash=key, deps=deps, status="completed", metadata=about))
    expected = right(world) | {"made.bin": world.value("made")}
    world.lose("made")
    theirs.lose("lost")
    options = replace(world.options(), others={"theirs": theirs.graph})
    report = regenerate(world.graph, FileOutputs(place, world.values), options)
    assert actions(report) | {deps[0]: "reused", deps[1]: "recomputed", "made": "recomputed"} == actions(report)
    assert files(place) == expected


@pytest.mark.parametrize("what", ["directory", "pipe"])
def test_what_is_no_file_is_not_taken_for_one(world: World, place: Path, what: str) -> None:
    (place / "model.bin").unlink()
    if what == "directory":
        (place / "model.bin").mkdir()
        with pytest.raises(RestoreFailed, match="a directory lies where the file belongs"):
            world.restore(FileOutputs(place, world.values))
        assert (place / "model.bin").is_dir()
    else:
        os.mkfifo(place / "model.bin")
        assert world.restore(FileOutputs(place, world.values)).ok
        assert files(place) == right(world)


def test_no_output_may_lie_among_the_files_of_backstay(tmp_path: Path) -> None:
    world = World()
    world.add("a", path=".backstay/journal.json")
    with pytest.raises(RestoreConflict, match="Backstay keeps its own files there"):
        world.restore(FileOutputs(tmp_path, world.values))


@pytest.mark.parametrize("journal", ["", "[]", "{}", json.dumps({"state": "go", "moment": "", "changes": []})])
def test_a_journal_that_nobody_wrote_is_told(world: World, place: Path, journal: str) -> None:
    (place / ".backstay").mkdir()
    (place / JOURNAL).write_text(journal)
    with pytest.raises(RestoreConflict, match=r"journal\.json"):
        world.restore(FileOutputs(place, world.values))
    assert files(place) == right(world)


def test_a_journal_cannot_lead_out_of_the_directory(world: World, place: Path, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (place / ".backstay/staging").mkdir(parents=True)
    (place / ".backstay/staging/1").write_bytes(b"evil")
    change = {"path": "../victim", "staged": "1", "inode": 1, "old": True}
    (place / JOURNAL).write_text(json.dumps({"state": "switch", "moment": "x", "changes": [change]}))
    with pytest.raises(RestoreConflict):
        world.restore(FileOutputs(place, world.values))
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_a_full_disk_is_told_as_such(world: World, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = spoil(place)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InsufficientSpace):
        world.restore(FileOutputs(place, world.values))
    monkeypatch.undo()
    assert files(place) == before


def test_a_file_that_changes_while_it_is_read_is_met_by_a_new_plan(world: World, place: Path) -> None:
    """The repository has lost the value, and the file is spoilt between the look and the use."""
    world.lose("raw", "clean")
    (place / "data/deep/clean.csv").write_bytes(b"bad")
    outputs = FileOutputs(place, world.values)
    look = outputs.look

    def look_then_spoil(*arguments: Any, **more: Any) -> Any:
        found = look(*arguments, **more)
        (place / "data/raw.csv").write_bytes(b"spoilt")
        return found

    outputs.look = look_then_spoil  # type: ignore[method-assign]
    report = world.restore(outputs)
    assert report.ok, report
    assert actions(report) == {"raw": "recomputed", "clean": "recomputed", "model": "reused", "note": "reused"}
    assert files(place) == right(world)
