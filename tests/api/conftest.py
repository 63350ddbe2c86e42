"""One service for the tests of this directory: opening one takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.world import World, serving


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serving(tmp_path_factory.mktemp("api")) as world:
        yield world


@pytest.fixture(scope="package")
def backup(world: World) -> Any:
    """A backup of the first source of `files`."""
    job = world.backup(sources=["files"], tags=["first"], description="the first one")
    return world.admin.ok("GET", f"/api/backup/{job['backup_id']}")
