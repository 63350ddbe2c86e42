"""The journal of a restore in place with several directories: how it begins, and how one is found by each of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from backstay.errors import RestoreConflict, RestoreFailed
from backstay.operations.restore.in_place_recovery import Recovery, resume_in_place, roll_back_in_place
from backstay.operations.restore.journal import PREFIX, Journal, Switch
from backstay.operations.restore.switching import Switching
from backstay.sources.switch_calls import SwitchCalls
from backstay.testing import CrashPoint
from tests.operations.in_place_world import BrokenCalls

Act: TypeAlias = Callable[[Path], Recovery]

NAME = f"{PREFIX.decode()}one"


@pytest.fixture
def areas(tmp_path: Path) -> tuple[Path, Path]:
    """Where the directories of one restore lie, the journal's first."""
    found = tmp_path / "inner" / NAME, tmp_path / "outer" / NAME
    for area in found:
        area.parent.mkdir()
    return found


def begin(areas: tuple[Path, ...], calls: SwitchCalls) -> None:
    Journal.begin(tuple(map(os.fsencode, areas)), "snapshot", keep_old=False, calls=calls).close()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("first", [0, 1])
def test_a_stop_at_any_call_of_the_beginning_is_cleared_away_from_each_directory(
    areas: tuple[Path, Path], first: int, after: bool
) -> None:
    counted = BrokenCalls()
    begin(areas, counted)
    assert resume_in_place(areas[first]).did == "cleared"
    for at in range(1, counted.count + 1):
        with pytest.raises(CrashPoint):
            begin(areas, BrokenCalls(at, after=after))
        for area in (areas[first], areas[1 - first]):
            if area.exists():
                assert resume_in_place(area).did == "cleared", f"call {at}"
        assert not any(area.exists() for area in areas), f"call {at}"


@pytest.mark.parametrize("act", [resume_in_place, roll_back_in_place])
def test_a_directory_without_what_it_should_say_holds_nothing(areas: tuple[Path, Path], act: Act) -> None:
    """Older versions could leave it so."""
    begin(areas, SwitchCalls())
    (areas[1] / "leads-to").write_bytes(b"")
    assert act(areas[1]).did == "cleared"
    assert act(areas[0]).did == "cleared"
    assert not any(area.exists() for area in areas)


def test_what_is_staged_in_a_directory_without_a_journal_stays(areas: tuple[Path, Path]) -> None:
    begin(areas, SwitchCalls())
    (areas[1] / "leads-to").write_bytes(b"")
    (areas[1] / "items").write_text("precious")
    with pytest.raises(RestoreFailed, match="not what a restore wrote"):
        resume_in_place(areas[1])
    assert (areas[1] / "items").read_text() == "precious"


@pytest.mark.parametrize("act", [resume_in_place, roll_back_in_place])
def test_a_journal_on_a_disk_that_is_not_attached_is_told(areas: tuple[Path, Path], act: Act) -> None:
    begin(areas, SwitchCalls())
    areas[0].rename(areas[0].with_name("elsewhere"))
    opened = set(os.listdir("/proc/self/fd"))
    with pytest.raises(RestoreConflict) as failed:
        act(areas[1])
    assert str(areas[0]) in failed.value.cause
    assert "attach the disk" in failed.value.hint
    assert set(os.listdir("/proc/self/fd")) <= opened


class Unsynced(SwitchCalls):
    """Knows which files and directories a power cut could still take back."""

    def __init__(self) -> None:
        self.places: set[str] = set()

    def create(self, fd: int, name: bytes) -> int:
        self.places |= {place_of(fd), f"{place_of(fd)}/{name.decode()}"}
        return super().create(fd, name)

    def mkdir(self, fd: int, name: bytes) -> None:
        self.places.add(place_of(fd))
        super().mkdir(fd, name)

    def replace(self, fd: int, old: bytes, new: bytes) -> None:
        assert f"{place_of(fd)}/{old.decode()}" not in self.places, "a name before its bytes"
        self.places.add(place_of(fd))
        super().replace(fd, old, new)

    def fsync(self, fd: int) -> None:
        super().fsync(fd)
        self.places.discard(place_of(fd))


def place_of(fd: int) -> str:
    return str(Path(f"/proc/self/fd/{fd}").readlink())


def test_each_step_of_the_journal_is_durable_before_the_next_one(areas: tuple[Path, Path]) -> None:
    calls = Unsynced()
    journal = Journal.begin(tuple(map(os.fsencode, areas)), "snapshot", keep_old=False, calls=calls)
    assert not calls.places
    journal.write_rows([])
    assert not calls.places
    for state in ("switching", "undoing", "undone"):
        journal.set_state(state)
        assert not calls.places, state
    journal.close()


def test_rows_that_were_changed_are_not_switched(areas: tuple[Path, Path]) -> None:
    journal = Journal.begin(tuple(map(os.fsencode, areas)), "snapshot", keep_old=False, calls=SwitchCalls())
    journal.write_rows([])
    assert [*journal.rows()] == []
    (areas[0] / "rows").write_bytes(b"\n")
    with pytest.raises(RestoreFailed, match="is not what a restore wrote"):
        [*journal.rows()]
    journal.close()


def _move(area: Path) -> Path:
    return area.rename(area.with_name(f"{PREFIX.decode()}two"))


def _rename(area: Path) -> Path:
    return area.rename(area.with_name("mine"))


def _open_to_others(area: Path) -> Path:
    area.chmod(0o770)
    return area


@pytest.mark.parametrize("act", [resume_in_place, roll_back_in_place])
@pytest.mark.parametrize(
    ("change", "says"),
    [(_move, "was made for"), (_rename, "has another name"), (_open_to_others, "others may write to it")],
)
def test_a_directory_that_a_restore_may_not_have_left_so_stays(
    areas: tuple[Path, Path], act: Act, change: Callable[[Path], Path], says: str
) -> None:
    begin(areas[:1], SwitchCalls())
    (areas[0] / "items").mkdir()
    place = change(areas[0])
    with pytest.raises((RestoreConflict, RestoreFailed)) as caught:
        act(place)
    assert says in caught.value.cause
    assert (place / "items").is_dir()


@pytest.mark.parametrize("forward", [True, False])
def test_nothing_is_switched_while_a_directory_is_not_there(areas: tuple[Path, Path], forward: bool) -> None:
    areas[0].mkdir()
    switching = Switching(tuple(map(os.fsencode, areas)), SwitchCalls())
    asked = iter([Switch(bytes(areas[0].parent / "file"), 0, b"items/0", 1, None, None)])
    with pytest.raises(FileNotFoundError):
        switching.forward(asked) if forward else switching.back(asked)
    assert len([*asked]) == 1, "not a row was looked at"


def test_what_is_there_stays_where_the_new_item_has_gone(areas: tuple[Path, Path]) -> None:
    areas[0].mkdir()
    (areas[0] / "items").mkdir()
    live = areas[0].parent / "file"
    live.write_text("old")
    row = Switch(bytes(live), 0, b"items/0", live.stat().st_ino + 1_000_000, live.stat().st_ino, None)
    with pytest.raises(OSError, match="changed since the restore was planned"):
        Switching((os.fsencode(areas[0]),), SwitchCalls()).forward([row])
    assert live.read_text() == "old"


@pytest.mark.parametrize("forward", [True, False])
def test_what_was_switched_is_durable_on_each_disk_before_the_journal_says_so(
    areas: tuple[Path, Path], forward: bool
) -> None:
    synced: list[str] = []

    class Synced(SwitchCalls):
        def sync(self, fd: int) -> None:
            synced.append(place_of(fd))

    for area in areas:
        area.mkdir()
    switching = Switching(tuple(map(os.fsencode, areas)), Synced())
    switching.forward([]) if forward else switching.back([])
    assert synced == [str(area) for area in areas]


def test_a_restore_that_came_to_its_end_without_its_old_state_is_not_rolled_back(areas: tuple[Path, Path]) -> None:
    journal = Journal.begin((os.fsencode(areas[0]),), "snapshot", keep_old=False, calls=SwitchCalls())
    journal.write_rows([])
    for state in ("switching", "done"):
        journal.set_state(state)
    journal.close()
    with pytest.raises(RestoreConflict, match="not kept any more"):
        roll_back_in_place(areas[0])
    assert not areas[0].exists()
