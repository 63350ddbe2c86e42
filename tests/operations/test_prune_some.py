"""A prune of some snapshots decides about no others, counts no others, and leaves WAL alone."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path

from backstay.operations.retention.prune import execute_prune, plan_prune
from backstay.operations.retention.rules import RetentionRules
from backstay.repository.repository import Repository
from backstay.testing import FakeClock, LockedStorage
from tests.operations.bases import make_base, store_wal
from tests.operations.copies import SECRET, SMALL_PACKS, back_up, make_source, open_alone

KEEP_ONE = RetentionRules(keep_last=1)


def test_nothing_is_decided_about_others(tmp_path: Path) -> None:
    store = LockedStorage(clock=FakeClock())
    Repository.create(store, SECRET, environment=SMALL_PACKS).close()
    source = make_source(tmp_path / "source", files=3)
    with open_alone(store) as repository:
        made = [back_up(repository, source) for _ in range(4)]
        now = repository.clock.now()
        plan = plan_prune(repository, KEEP_ONE, now=now, zone=UTC, only=made[:3])
        assert {decision.candidate.id for decision in plan.decisions} == set(made[:3])
        assert execute_prune(repository, plan).dropped == tuple(made[:2])
        assert {manifest.id for manifest in repository.snapshots.live()} == set(made[2:])
        assert plan_prune(repository, KEEP_ONE, now=now, zone=UTC, only=()).decisions == []


def test_wal_stays(tmp_path: Path) -> None:
    store = LockedStorage(clock=FakeClock())
    Repository.create(store, SECRET, environment=SMALL_PACKS).close()
    with open_alone(store) as repository:
        store_wal(repository, [1, 2])
        make_base(repository, make_source(tmp_path / "source", files=1), 5)
        everything = plan_prune(repository, KEEP_ONE, now=repository.clock.now(), zone=UTC)
        some = plan_prune(repository, KEEP_ONE, now=repository.clock.now(), zone=UTC, only=())
        assert everything.wal
        assert some.wal == ()
