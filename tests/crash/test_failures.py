"""Each call that changes the file system fails, once or from then on: typed errors, nothing promised in vain."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from backstay.errors import BackstayError, InsufficientSpace
from backstay.testing import FaultyFilesystem
from tests.crash.scenarios import SCENARIOS, Scenario, count_calls, prepared, sample, small_constants
from tests.crash.small_world import Unsynced, World
from tests.crash.test_stops import assert_recovers

pytestmark = pytest.mark.crash
POINTS = 5  # for each scenario and failure; all of them with BACKSTAY_NIGHTLY
ERRNOS = {"EIO": errno.EIO, "ENOSPC": errno.ENOSPC, "EROFS": errno.EROFS}


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with small_constants():
        yield


def fail(world: World, scenario: Scenario, filesystem: FaultyFilesystem) -> BackstayError | None:
    """The typed error that an operation ends with, if it ends with one; any other error fails the test."""
    try:
        scenario.act(world, filesystem)
    except BackstayError as error:
        return error
    return None


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("name", ERRNOS)
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_a_failing_call_is_told_and_does_no_harm(scenario: Scenario, name: str, lasting: bool, place: Path) -> None:
    base = prepared(scenario, place)
    total = count_calls(scenario, base, place)
    hits = 0
    for point in sample(total, POINTS, f"{scenario.name} {name} {lasting}"):
        world = base.copy(place / f"at-{point}")
        filesystem = FaultyFilesystem(at=point, fault=ERRNOS[name], repeat=lasting, inner=Unsynced())
        error = fail(world, scenario, filesystem)
        hits += bool(filesystem.hits)  # packs have random names, and so one run makes a directory less than another
        if lasting and name == "ENOSPC" and error is not None:
            assert isinstance(error, InsufficientSpace)
        assert_recovers(world, scenario, f"{name} at call {point} of {total}")
        shutil.rmtree(world.directory)
    assert hits >= POINTS - 2


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_a_lost_answer_does_no_harm(scenario: Scenario, place: Path) -> None:
    """The call has its effect, and fails all the same."""
    base = prepared(scenario, place)
    total = count_calls(scenario, base, place)
    for point in sample(total, POINTS, f"{scenario.name} lost"):
        world = base.copy(place / f"at-{point}")
        fail(world, scenario, FaultyFilesystem(at=point, fault=errno.EIO, after=True, inner=Unsynced()))
        assert_recovers(world, scenario, f"lost answer at call {point} of {total}")
        shutil.rmtree(world.directory)


@pytest.mark.parametrize("limit", [1, 7, 4096])
def test_short_writes_do_no_harm(limit: int, place: Path) -> None:
    scenario = SCENARIOS["next-backup"]
    base = prepared(scenario, place)
    world = base.copy(place / "short")
    filesystem = FaultyFilesystem(write_limit=max(limit, 64), inner=Unsynced())
    assert fail(world, scenario, filesystem) is None
    world.assert_sound()
