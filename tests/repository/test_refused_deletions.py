"""A store that does not give up everything: the rest is deleted, what stays is told, and goes when it may."""

from __future__ import annotations

from datetime import UTC, timedelta

import pytest

from backstay.errors import StorageRefused
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.repair.run import repair_index
from backstay.operations.retention.prune import execute_prune, plan_prune
from backstay.operations.retention.rules import RetentionRules
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.collection.collector import Collector
from backstay.repository.collection.compaction import MANY_SEGMENTS
from backstay.repository.collection.deleting import Refusal
from backstay.repository.collection.plan import CollectionResult
from backstay.repository.collection.reserve import set_aside
from backstay.repository.format import RESERVE
from backstay.repository.repository import Environment, Repository
from backstay.storage.memory import MemoryStorage
from backstay.testing import FakeClock
from tests.crash.small_world import PACK_TARGET, SECRET, MemorySource, Tree, content


class Keeping(MemoryStorage):
    """Refuses to delete the objects named in `kept`, and all below the prefixes in it."""

    kept: tuple[str, ...] = ()

    def delete(self, name: str) -> None:
        if self.kept and name.startswith(self.kept):
            raise StorageRefused(f"cannot delete {name}", cause="it answered 403 RetentionPolicyNotMet")
        super().delete(name)

    def names(self, prefix: str) -> set[str]:
        return {info.name for info in self.list(prefix)}


class World:
    """Five snapshots, of which the last is kept."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = Keeping(clock=self.clock)
        environment = Environment(clock=self.clock, threads=1, pack_target=PACK_TARGET)
        self.repository = Repository.create(self.store, SECRET, environment=environment)
        for seed in range(4):
            self.back_up({b"/a": content(seed, 50_000)})
        self.back_up({b"/a": content(99, 50_000)})
        rules = RetentionRules(keep_last=1)
        execute_prune(self.repository, plan_prune(self.repository, rules, now=self.clock.now(), zone=UTC))

    def back_up(self, tree: Tree) -> None:
        self.clock.advance(3600)
        run_backup(self.repository, MemorySource(tree), BackupOptions(host="host"))

    def collect(self) -> CollectionResult:
        collector = Collector(self.repository, lease=timedelta(0))
        return collector.execute(collector.plan())

    def assert_good(self) -> None:
        assert run_verify(self.repository, options=VerifyOptions(read_data=1.0)).ok


@pytest.fixture
def world() -> World:
    return World()


def test_one_refused_pack_keeps_no_other(world: World) -> None:
    plan = Collector(world.repository, lease=timedelta(0)).plan()
    dead = sorted(name for name in world.store.names("packs/") if bytes.fromhex(name[-64:]) in plan.dead)
    assert len(dead) > 2
    world.store.kept = (dead[0],)
    result = world.collect()
    assert result.refused == (Refusal(dead[0], "it answered 403 RetentionPolicyNotMet"),)
    assert world.store.names("packs/") & {*dead} == {dead[0]}
    assert 0 < result.freed_bytes < plan.dead_bytes
    world.assert_good()
    world.store.kept = ()
    assert world.collect().refused == ()
    assert not world.store.names("packs/") & {*dead}
    world.assert_good()


@pytest.mark.parametrize("prefix", ["packs/", "index/", "snapshots/", "meta/", RESERVE])
def test_what_was_refused_goes_when_it_may(world: World, prefix: str) -> None:
    set_aside(world.repository)
    world.store.kept = (prefix,)
    before = {name for name in world.store.names("") if name.startswith(prefix)}
    first = world.collect()
    assert first.refused
    assert {one.name for one in first.refused} <= before
    world.assert_good()
    again = world.collect()
    if prefix != RESERVE:  # it is given up only where there is something to free
        assert {one.name for one in again.refused} >= {one.name for one in first.refused}
    world.assert_good()
    world.store.kept = ()
    assert world.collect().refused == ()
    if prefix != RESERVE:
        assert not world.store.names("") & {one.name for one in first.refused}
    world.assert_good()


@pytest.mark.parametrize("many", [False, True])
def test_index_segments_that_stay_are_replaced_once(world: World, many: bool) -> None:
    if many:
        for seed in range(MANY_SEGMENTS):
            world.back_up({b"/a": content(100 + seed, 1000)})
    world.store.kept = ("index/",)
    first = world.collect()
    assert first.refused
    names = world.store.names("index/")
    for _ in range(3):
        world.clock.advance(3600)
        assert {*world.collect().refused} == {*first.refused}
        assert world.store.names("index/") == names
        world.assert_good()
    world.store.kept = ()
    assert world.collect().refused == ()
    assert len(world.store.names("index/")) == len(names) - len(first.refused)
    world.assert_good()


def test_an_index_that_still_names_lost_packs_is_not_called_repaired(world: World) -> None:
    world.store.delete(min(world.store.names("packs/")))
    world.store.kept = ("index/",)
    with pytest.raises(StorageRefused, match="refused to delete") as caught:
        repair_index(world.repository)
    assert "index/" in caught.value.cause
    world.store.kept = ()
    repair_index(world.repository)
