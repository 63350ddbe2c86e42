"""What is measured is what there is."""

from __future__ import annotations

from pathlib import Path

from tests.measuring import TRACED, is_measured


def test_the_places_that_are_measured_hold_tests() -> None:
    here = Path(__file__).parent
    for place in map(here.joinpath, TRACED):
        tests = [place] if place.is_file() else [*place.glob("**/test_*.py")]
        assert tests, place
        assert all(map(is_measured, tests))
    assert not is_measured(Path(__file__))
    assert not is_measured(here.parent / "examples" / "codec" / "test_it.py")
