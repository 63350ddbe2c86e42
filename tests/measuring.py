"""Coverage is traced where it is asked for: a test that is traced takes half as long again, or more."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from coverage import Coverage

# Tests that cover what must be covered (`tool.coverage.run` in pyproject.toml): rooms of them, and files.
TRACED: Final = ("codec", "crash/test_values.py", "formats", "operations", "repository", "trust")
_TESTS: Final = Path(__file__).parent


class Measuring:
    """Traces those tests; nothing happens in a run that is not measured."""

    def __init__(self) -> None:
        self._paused: list[Coverage] = []  # one of them goes on when another one stops

    def begin(self, test: Path) -> None:
        """A test of this file comes next."""
        if is_measured(test):
            while self._paused:
                self._paused.pop().start()
            return
        while (running := Coverage.current()) is not None:
            running.stop()
            self._paused.append(running)


def is_measured(test: Path) -> bool:
    """Whether the tests of a file are traced."""
    return any(test.is_relative_to(_TESTS / place) for place in TRACED)
