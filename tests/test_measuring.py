"""What is measured is what there is."""

from __future__ import annotations

from pathlib import Path

from tests.measuring import ROOMS, is_measured


def test_the_rooms_that_are_measured_hold_tests() -> None:
    here = Path(__file__).parent
    for room in ROOMS:
        assert all(map(is_measured, here.joinpath(room).glob("**/test_*.py")))
        assert [*here.joinpath(room).glob("**/test_*.py")], room
    assert not is_measured(Path(__file__))
    assert not is_measured(here.parent / "examples" / "codec" / "test_it.py")
