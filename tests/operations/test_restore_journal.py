"""The journal of a restore in place with several directories: how it begins, and how one is found by each of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from backstay.errors import RestoreConflict, RestoreFailed
from backstay.operations.restore.in_place_recovery import Recovery, resume_in_place, roll_back_in_place
from backstay.operations.restore.journal import PREFIX, Journal
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


def begin(areas: tuple[Path, Path], calls: SwitchCalls) -> None:
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
