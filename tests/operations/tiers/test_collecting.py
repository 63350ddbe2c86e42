"""Collections and copies of a repository of which a part lies in the cold tier."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from backstay.core.events import Warned
from backstay.errors import InvalidRequest
from backstay.operations.copies.mirror import copy_objects
from backstay.operations.verify.run import run_verify
from backstay.repository.collection.collector import Collector
from backstay.repository.repository import Repository
from backstay.storage.mirrored import Mirrored
from backstay.storage.tiered import NOTES
from tests.operations.copies import SECRET, Store, contents, open_alone
from tests.operations.tiers.places import READ_ALL, Place, collect, drop_all_but_last, ident, names


def replaced_source(place: Place) -> None:
    """Nothing of the first snapshot is in the second."""
    place.back_up()
    place.set()
    place.move()
    for path in place.source.rglob("file-*"):
        path.write_bytes(random.Random(str(path)).randbytes(50_000))
    place.back_up()
    drop_all_but_last(place)


def test_dead_packs_are_deleted_in_the_cold_tier(place: Place) -> None:
    replaced_source(place)
    assert names(place.cold)
    collect(place)
    assert names(place.cold) == names(place.hot, NOTES) == set()
    with place.open() as repository:
        assert run_verify(repository, None, READ_ALL).findings == ()


def test_nothing_is_collected_in_a_copy_that_is_a_cold_tier_too(place: Place) -> None:
    place.back_up()
    for info in place.hot.list():
        place.cold.store(info.name, place.hot.retrieve(info.name))
    (place.source / "more").write_bytes(random.Random(9).randbytes(300_000))
    place.back_up()
    place.cold.store("tier.json", b"as an older version accepted it")
    for name in names(place.hot) - names(place.cold):
        place.cold.store(name, place.hot.retrieve(name))
    before = names(place.cold)
    with open_alone(place.cold) as copy:
        collector = Collector(copy)
        with pytest.raises(InvalidRequest, match=r"is the cold tier.*tier\.json"):
            collector.execute(collector.plan())
    assert names(place.cold) == before


def test_no_repository_is_made_in_a_cold_tier(place: Place) -> None:
    place.set()
    with pytest.raises(InvalidRequest, match="is the cold tier"):
        Repository.create(place.cold, SECRET)
    assert names(place.cold, "") == {"tier.json"}


def test_dead_packs_of_a_tier_that_is_away_are_deferred(place: Place, tmp_path: Path) -> None:
    replaced_source(place)
    before = names(place.cold)
    place.attached = False
    for _ in range(2):
        result = collect(place)
        assert result.deferred_packs == len(before)  # type: ignore[attr-defined]
        assert result.deferred_bytes == sum(info.size for info in place.cold.list("packs/"))  # type: ignore[attr-defined]
        assert names(place.cold) == before
    place.back_up()
    assert place.restore(ident(place), tmp_path / "out") == contents(place.source)
    place.attached = True
    assert collect(place).deferred_packs == 0  # type: ignore[attr-defined]
    assert names(place.cold) == set()


def test_packs_that_are_hardly_used_are_not_read_from_the_cold_tier(place: Place, tmp_path: Path) -> None:
    place.back_up()
    place.set()
    place.move()
    kept = next(path for path in sorted(place.source.rglob("file-*")) if path.stat().st_size == 3000)
    for path in place.source.rglob("file-*"):
        if path != kept:
            path.write_bytes(b"gone")
    last = place.back_up()
    drop_all_but_last(place)
    place.attached = False
    collect(place)
    place.attached = True
    collect(place)
    assert len(names(place.cold)) >= 1
    assert place.restore(last, tmp_path / "out") == contents(place.source)


def test_a_compromised_pack_in_the_cold_tier_is_told(place: Place) -> None:
    place.back_up()
    place.set()
    place.move()
    with place.open() as repository:
        repository.keyring.mark_compromised(1, place.clock)
    told: list[str] = []
    collect(place, lambda event: told.append(event.message) if isinstance(event, Warned) else None)
    assert len(told) == len(names(place.cold))


def test_a_deleted_pack_does_not_come_back_from_the_cold_tier(place: Place) -> None:
    """A move that was slower than a collection left it there, without a note."""
    replaced_source(place)
    left = {name: place.cold.retrieve(name) for name in names(place.cold)}
    collect(place)
    for name, data in left.items():
        place.cold.store(name, data)
    place.move()
    assert names(place.cold).isdisjoint(left)


def test_a_lost_note_is_written_again(place: Place, tmp_path: Path) -> None:
    first = place.back_up()
    place.set()
    place.move()
    notes = names(place.hot, NOTES)
    for name in notes:
        place.hot.delete(name)
    place.move()
    assert names(place.hot, NOTES) == notes
    assert place.restore(first, tmp_path / "out") == contents(place.source)


def test_a_copy_of_a_tiered_repository_is_whole(place: Place, tmp_path: Path) -> None:
    first = place.back_up()
    place.set()
    place.move()
    copy = Store("copy")
    with place.open() as repository:
        assert copy_objects(repository, copy).findings == ()
    assert names(copy) == names(place.cold)
    assert not {name for name in copy.objects() if name.startswith(("cold/", "tiers/"))}
    with open_alone(copy) as repository:
        assert run_verify(repository, None, READ_ALL).findings == ()
        assert repository.snapshots.live()[0].id == first


def test_the_hot_tier_may_be_mirrored(place: Place, tmp_path: Path) -> None:
    first, second = Store("first"), Store("second")
    place.hot = Mirrored([first, second])
    Repository.create(place.hot, SECRET, environment=place.environment).close()
    snapshot = place.back_up()
    place.set()
    place.move()
    assert names(first) == names(second) == set()
    assert names(first, NOTES) == names(second, NOTES) != set()
    assert place.restore(snapshot, tmp_path / "out") == contents(place.source)
    place.hot = second  # the first one is gone for good
    assert place.restore(snapshot, tmp_path / "out2") == contents(place.source)
