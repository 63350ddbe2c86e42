"""The searches through thousands of schedules are not traced: it would take them several times as long."""

from __future__ import annotations

from collections.abc import Iterator

import coverage
import pytest

_SEARCHES = ("test_schedules", "test_state_machine", "test_values")


@pytest.fixture(autouse=True)
def untraced(request: pytest.FixtureRequest) -> Iterator[None]:
    measured = coverage.Coverage.current()
    if measured is None or not request.node.path.stem.startswith(_SEARCHES):
        yield
        return
    measured.stop()
    try:
        yield
    finally:
        measured.start()
