"""One service for the tests of this directory: opening one takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.agents.world import World, serving


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serving(tmp_path_factory.mktemp("agents")) as world:
        yield world
