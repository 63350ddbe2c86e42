"""One service for all tests of a process: opening one takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.agents.world import World, serving


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serving(tmp_path_factory.mktemp("agents")) as world:
        yield world
