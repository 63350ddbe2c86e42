"""One service for the tests of this directory: opening one takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.world import World, first_backup, serving


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serving(tmp_path_factory.mktemp("api")) as world:
        yield world


@pytest.fixture(scope="package")
def backup(world: World) -> Any:
    return first_backup(world)
