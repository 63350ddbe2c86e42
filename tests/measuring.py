"""Coverage is traced where it is asked for: a test that is traced takes half as long again, or more."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from coverage import Coverage

# Whose tests cover what must be covered (`tool.coverage.run` in pyproject.toml).
ROOMS: Final = frozenset(
    {"catalog", "cli", "codec", "crash", "formats", "operations", "protocol", "repository", "trust"}
)
_TESTS: Final = Path(__file__).parent


class Measuring:
    """Traces the tests of those rooms; nothing happens in a run that is not measured."""

    def __init__(self) -> None:
        self._coverage = Coverage.current()
        self._is_on = True

    def begin(self, test: Path) -> None:
        """A test of this file comes next."""
        wanted = is_measured(test)
        if self._coverage is None or wanted is self._is_on:
            return
        if wanted:
            self._coverage.start()
        else:
            self._coverage.stop()
        self._is_on = wanted


def is_measured(test: Path) -> bool:
    """Whether a file of tests is in one of the rooms."""
    return test.is_relative_to(_TESTS) and test.relative_to(_TESTS).parts[0] in ROOMS
