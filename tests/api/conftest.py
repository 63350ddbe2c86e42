"""One service for the tests of this directory: opening one takes longer than most of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.world import World, first_backup, serving


@pytest.fixture(scope="package")
def world() -> Iterator[World]:
    # Not among the others, which may lie in /dev/shm: who may restore does not get to write below /dev.
    with tempfile.TemporaryDirectory(prefix="backstay-tests-") as place, serving(Path(place)) as world:
        yield world


@pytest.fixture(scope="package")
def backup(world: World) -> Any:
    return first_backup(world)
