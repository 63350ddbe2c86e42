"""The page of commands is what its script makes, and tells of every variable that the program reads."""

from __future__ import annotations

import re
from pathlib import Path

from tools.make_commands import FILE, VARIABLES, text

SOURCE = Path(__file__).parents[2] / "src"
TOLD_ELSEWHERE = {  # by the program to programs that it starts
    "BACKSTAY_HOOK",
    "BACKSTAY_SNAPSHOT",
    "BACKSTAY_SCRATCH",
    "BACKSTAY_STEP",
}


def test_the_page_is_what_the_script_makes() -> None:
    assert FILE.read_text() == text(), "run `uv run python -m tools.make_commands`"


def test_every_variable_that_is_read_is_told() -> None:
    read = {
        name
        for file in SOURCE.rglob("*.py")
        for name in re.findall(r'"((?:BACKSTAY|XDG)_[A-Z_]+[A-Z])"', file.read_text())
    }
    assert len(read) > 10
    assert read - TOLD_ELSEWHERE - VARIABLES.keys() == set()
