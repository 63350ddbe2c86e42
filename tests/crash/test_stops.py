"""The program ends, or the power goes, at every call that changes the file system."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from backstay.repository.index.index import Index
from backstay.repository.snapshots.store import Manifest, SnapshotStore
from backstay.storage.filesystem_seam import Filesystem
from backstay.testing import CrashPoint, FaultyFilesystem, PowerCutFilesystem
from tests.crash.scenarios import SCENARIOS, Scenario, count_calls, prepared, sample, small_constants
from tests.crash.small_world import Unsynced, World, collect

pytestmark = pytest.mark.crash
POINTS = 12  # for each scenario and way to stop; all of them with BACKSTAY_NIGHTLY


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    with small_constants():
        yield


class PowerCut(PowerCutFilesystem, Unsynced):
    """Knows what would be on disk, without waiting for one."""


class NeverSynced(PowerCut):
    """A program that forgets to sync files."""

    def fsync(self, descriptor: int) -> None:
        if Path(self._paths[descriptor]).is_dir():
            super().fsync(descriptor)


class DirectoriesNeverSynced(PowerCut):
    """A program that forgets to sync directories."""

    def fsync(self, descriptor: int) -> None:
        if not Path(self._paths[descriptor]).is_dir():
            super().fsync(descriptor)


Stop = Callable[[World, Scenario, int], None]


def end_before(world: World, scenario: Scenario, point: int) -> None:
    """The program ends just before the call."""
    with suppress(CrashPoint):
        scenario.act(world, FaultyFilesystem(at=point, fault=CrashPoint, inner=Unsynced()))


def end_after(world: World, scenario: Scenario, point: int) -> None:
    """The program ends just after the call: what it did is there, and nobody was told."""
    with suppress(CrashPoint):
        scenario.act(world, FaultyFilesystem(at=point, fault=CrashPoint, after=True, inner=Unsynced()))


def cut_power(world: World, scenario: Scenario, point: int, disk: type[PowerCut] = PowerCut) -> None:
    """Everything stops at the call, and only what was synced is left."""
    attic = world.directory.with_name(world.directory.name + "-attic")
    attic.mkdir()
    filesystem = disk(attic)
    with suppress(CrashPoint):
        scenario.act(world, FaultyFilesystem(at=point, fault=CrashPoint, inner=filesystem))
    filesystem.cut(world.directory)


@pytest.mark.parametrize("stop", [end_before, end_after, cut_power])
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_everything_acknowledged_survives(scenario: Scenario, stop: Stop, place: Path) -> None:
    base = prepared(scenario, place)
    total = count_calls(scenario, base, place)
    assert total >= 5
    for point in [*sample(total, POINTS, f"{scenario.name} {stop.__name__}"), total + 1]:
        world = base.copy(place / f"at-{point}")
        stop(world, scenario, point)
        assert_recovers(world, scenario, f"{stop.__name__} at call {point} of {total}")
        shutil.rmtree(world.directory)


def assert_recovers(world: World, scenario: Scenario, told: str) -> None:
    try:
        scenario.recover(world)
        world.assert_sound()
    except BaseException as error:
        error.add_note(told)
        raise


def test_the_collection_that_is_stopped_does_everything(place: Path) -> None:
    """Copies what lives in sparse packs, fences a dead writer, deletes packs and objects, merges segments."""
    base = prepared(SCENARIOS["collect"], place)
    with base.open() as repository:
        before = len(repository.index.segments())
        result = collect(repository)
        assert result.rewritten_bytes
        assert result.deleted_packs
        assert len(result.fenced) == 1
        assert len(repository.index.segments()) < before
        assert len(repository.snapshots.taken()) == 2  # one that lives, and the fence


# -- the tests are able to fail


def failures(scenario: Scenario, stop: Callable[[World, int], object], place: Path) -> int:
    """At how many points the promise is broken."""
    base = prepared(scenario, place)
    total = count_calls(scenario, base, place)
    broken = 0
    for point in range(1, total + 2):
        world = base.copy(place / f"at-{point}")
        stop(world, point)
        try:
            world.assert_sound()
        except Exception:  # noqa: BLE001 - whatever it is, it was noticed
            broken += 1
            if broken >= 1:
                break
    return broken


@pytest.mark.parametrize("disk", [NeverSynced, DirectoriesNeverSynced])
def test_a_program_that_does_not_sync_is_found_out(disk: type[PowerCut], place: Path) -> None:
    scenario = SCENARIOS["next-backup"]
    base = prepared(scenario, place)
    cut_power(base, scenario, 0, disk)  # after the answer
    with pytest.raises(Exception):  # noqa: B017, PT011 - any way of noticing will do
        base.assert_sound()


def test_a_snapshot_before_its_index_is_found_out(place: Path) -> None:
    held: list[tuple[Index, list[Any]]] = []
    write, commit = Index.write, SnapshotStore.commit

    def hold(self: Index, packs: list[Any], **options: Any) -> bytes:
        held.append((self, list(packs)))
        return b""

    def commit_first(self: SnapshotStore, manifest: Manifest) -> None:
        commit(self, manifest)
        for index, packs in held:
            write(index, packs)
        held.clear()

    def stop(world: World, point: int) -> None:
        held.clear()
        with patch.object(Index, "write", hold), patch.object(SnapshotStore, "commit", commit_first):
            end_before(world, SCENARIOS["first-backup"], point)

    assert failures(SCENARIOS["first-backup"], stop, place)


def test_an_operation_that_is_not_disturbed_says_so(place: Path) -> None:
    """The counted calls are all there are: one stop later, the operation comes to its end."""
    scenario = SCENARIOS["first-backup"]
    base = prepared(scenario, place)
    total = count_calls(scenario, base, place)
    world = base.copy(place / "whole")
    filesystem = FaultyFilesystem(at=total + 1, fault=CrashPoint, inner=Filesystem())
    scenario.act(world, filesystem)
    assert (filesystem.hits, len(world.promised)) == (0, 1)
