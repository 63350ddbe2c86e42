"""Three stores of one repository."""

from __future__ import annotations

import pytest

from tests.storage.mirrored.places import World


@pytest.fixture
def world() -> World:
    made = World()
    for place in made.places:
        place.inner.store("repo.json", b"{}")
    return made
