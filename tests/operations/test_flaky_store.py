"""Whole operations over a store that fails and loses answers, behind retries."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backstay.core.clock import SystemClock
from backstay.errors import SnapshotFenced
from backstay.operations.copies.mirror import copy_objects
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.collection.collector import Collector
from backstay.repository.repository import Repository
from backstay.storage.backend import StorageBackend
from backstay.storage.mirrored import Mirrored
from backstay.storage.read_ahead import ReadAhead
from backstay.storage.retrying import Retrying, RetryPolicy
from backstay.testing import FakeClock, Fault, FaultKind, FaultyBackend
from tests.operations.copies import (
    SECRET,
    SMALL_PACKS,
    Store,
    back_up,
    contents,
    make_repository,
    make_source,
    open_alone,
    restored,
)

RATES: dict[FaultKind, float] = {"error_before": 0.1, "error_after": 0.1, "incomplete_listing": 0.2}


def flaky(store: Store, seed: int) -> StorageBackend:
    """One call in ten fails, and one answer in ten is lost."""
    faulty = FaultyBackend(store, seed=seed, rates=RATES)
    return Retrying(faulty, policy=RetryPolicy(deadline_s=1e6), clock=FakeClock(), random=lambda: 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_backups_and_collections_get_through(tmp_path: Path, seed: int) -> None:
    source = make_source(tmp_path / "source")
    stores = Store("a"), Store("b")
    make_repository(Mirrored([flaky(store, seed) for store in stores]), source)
    newest = ""
    for number in range(2):
        (source / f"later-{number}").write_bytes(bytes([number]) * 5000)
        with Repository.open(Mirrored([flaky(store, seed) for store in stores]), SECRET) as repository:
            newest = back_up(repository, source)
            repository.snapshots.drop(repository.snapshots.live()[0].id, "for a test", repository.clock)
            collector = Collector(repository)
            collector.execute(collector.plan())
    for store in stores:
        with open_alone(store) as repository:
            assert run_verify(repository, None, VerifyOptions(read_data=1.0)).findings == ()
            found, errors = restored(repository, newest, tmp_path / store.place, source)
            assert (found, errors) == (contents(source), [])
    marks = [name for name in stores[0].objects() if name.startswith(("mirror/", "sessions/"))]
    assert marks == ["mirror/first"]


@pytest.mark.parametrize("prefix", ["packs/", "meta/"])
def test_a_pack_that_arrives_damaged_once_is_no_damage(tmp_path: Path, prefix: str) -> None:
    store = Store("a")
    make_repository(store, make_source(tmp_path / "source"))
    packs = [info.name for info in store.list(prefix)]
    verified, copied = FaultyBackend(store), FaultyBackend(store)
    with Repository.open(ReadAhead(verified), SECRET) as repository:
        verified.script(*(Fault(kind="bit_flip", operation="retrieve", prefix=name) for name in packs))
        assert run_verify(repository, None, VerifyOptions(read_data=1.0)).findings == ()
    with Repository.open(copied, SECRET) as repository:
        copied.script(*(Fault(kind="bit_flip", operation="retrieve", prefix=name) for name in packs))
        assert copy_objects(repository, target := Store("b")).findings == ()
    for faulty in (verified, copied):
        assert faulty.hits["bit_flip"] == len(packs)
    assert target.objects() == store.objects()


class Wide(Store):
    """Takes several objects at once."""

    parallel = 4


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_copy_that_fails_among_uploads_at_once_stays_a_repository(tmp_path: Path, at: int) -> None:
    source = make_source(tmp_path / "source")
    first, copy = Wide("a"), Wide("b")
    make_repository(Mirrored([first, copy]), source)
    with open_alone(copy) as repository:
        before = [snapshot.id for snapshot in repository.snapshots.live()]
    for number in range(24):  # how they are cut, and so how many packs they need, is left to chance
        (source / f"later-{number}").write_bytes(random.Random(number).randbytes(1 << 20))
    failing = FaultyBackend(copy)
    failing.script(Fault(kind="error_before", operation="store", at=at, prefix="packs/"))
    mirror = Mirrored([first, failing], quorum=1)
    assert mirror.parallel == 4
    with Repository.open(mirror, SECRET, environment=SMALL_PACKS) as repository:
        newest = back_up(repository, source)
    assert failing.hits["error_before"] == 1
    for store, snapshots in ((first, [*before, newest]), (copy, before)):
        with open_alone(store) as repository:
            assert sorted(snapshot.id for snapshot in repository.snapshots.live()) == sorted(snapshots)
            assert run_verify(repository, None, VerifyOptions(read_data=1.0)).findings == ()


# --- one name, a commit and a fence ---


class Race:
    """A writer that is about to commit, and a collector that fences it while one of them waits for its next try."""

    def __init__(self, tmp_path: Path) -> None:
        self.store = Store("race")
        self.source = make_source(tmp_path / "source", files=3)
        Repository.create(self.store, SECRET, environment=SMALL_PACKS).close()
        self.fenced: list[bool] = []
        self.between: Callable[[], object] = lambda: None

    def over(self, kind: FaultKind) -> StorageBackend:
        """The store, whose first create of a snapshot's name fails; `between` happens before the second."""
        faulty = FaultyBackend(self.store)
        faulty.script(Fault(kind=kind, operation="store", prefix="snapshots/"))
        return Retrying(faulty, clock=SystemClock(), sleep=self._wait)

    def _wait(self, seconds: float) -> None:
        self.between()

    def fence(self, store: StorageBackend) -> None:
        with open_alone(store) as repository:
            for info in list(self.store.list("sessions/")):
                session = info.name.removeprefix("sessions/").partition(".")[0]
                self.fenced.append(repository.snapshots.fence(session, 1, repository.clock))

    def commit(self, store: StorageBackend) -> str:
        with open_alone(store) as repository:
            return back_up(repository, self.source)


@pytest.fixture
def race(tmp_path: Path) -> Race:
    return Race(tmp_path)


def snapshots(race: Race) -> list[str]:
    with open_alone(race.store) as repository:
        return [manifest.id for manifest in repository.snapshots.live()]


def test_a_commit_whose_answer_was_lost_is_a_snapshot_that_no_fence_takes_back(race: Race) -> None:
    race.between = lambda: race.fence(race.store)
    assert snapshots(race) == [] != [race.commit(race.over("error_after"))]
    assert race.fenced == [False]
    assert len(snapshots(race)) == 1


def test_a_commit_that_did_not_arrive_in_time_finds_the_fence(race: Race) -> None:
    race.between = lambda: race.fence(race.store)
    with pytest.raises(SnapshotFenced):
        race.commit(race.over("error_before"))
    assert race.fenced == [True]
    assert snapshots(race) == []


@pytest.mark.parametrize(("kind", "wins"), [("error_after", True), ("error_before", False)])
def test_a_fence_whose_answer_was_lost_knows_itself_from_a_commit(race: Race, kind: Any, wins: bool) -> None:
    """The collector fences while the writer waits to commit; the writer commits while the collector's try failed."""
    outcome: list[object] = []

    class Announcing(FaultyBackend):
        """Lets the collector run just before the commit."""

        def store(self, name: str, data: Any, *, overwrite: bool = False) -> None:
            if name.startswith("snapshots/") and not outcome:
                outcome.append("committing")
                race.between = lambda: super(Announcing, self).store(name, data) if not wins else None
                race.fence(race.over(kind))
            super().store(name, data, overwrite=overwrite)

    if wins:
        with pytest.raises(SnapshotFenced):
            race.commit(Announcing(race.store))
    else:
        race.commit(Announcing(race.store))
    assert race.fenced == [wins]
    assert len(snapshots(race)) == (0 if wins else 1)
