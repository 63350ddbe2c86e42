"""Packs in an archive class: thawed in one batch, before anything needs them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from backstay.core.events import Event, Progress, Started
from backstay.errors import (
    ObjectFrozen,
    StorageUnavailable,
    ThawPending,
    TierNotAttached,
)
from backstay.operations.copies.mirror import copy_objects
from backstay.operations.copies.result import CopyResult
from backstay.operations.copies.transfer import copy_snapshots
from backstay.operations.repair.run import repair_index, repair_packs
from backstay.operations.restore.run import RestoreOptions, plan_restore, run_restore
from backstay.operations.snapshots.look import open_file
from backstay.operations.tiers.moving import (
    plan_recall,
    run_recall,
    tier_status,
)
from backstay.operations.verify.run import run_verify
from backstay.repository.repository import Repository
from backstay.storage.cold_store import MARK
from backstay.testing import CrashPoint, Fault, FaultyBackend, GlacierStorage
from backstay.trust.secrets import Secret
from tests.operations.copies import Store, contents
from tests.operations.tiers.places import DAY, READ_ALL, Place, collect, drop_all_but_last, ident, names

OTHER = Secret.new_keyfile()


@pytest.fixture
def frozen(place: Place) -> Place:
    """The same with everything in an archive."""
    place.cold = GlacierStorage(clock=place.clock)
    place.back_up()
    place.set()
    assert place.move().packs
    return place


def test_a_restore_thaws_in_one_batch_and_waits(frozen: Place, tmp_path: Path) -> None:
    glacier = frozen.cold
    assert isinstance(glacier, GlacierStorage)
    events: list[Event] = []
    with frozen.open() as repository:
        manifest = repository.snapshots.live()[0]
        plan = plan_restore(repository, manifest, tmp_path / "out", RestoreOptions())
        assert plan.cold is not None
        assert set(plan.cold.frozen) == names(glacier)
        assert plan.cold.bytes_to_wait_for == sum(info.size for info in glacier.list("packs/"))
        assert plan.cold.usual_s == 4 * 3600
        assert glacier.batches == []
        begun = frozen.clock.monotonic()
        run_restore(repository, manifest, tmp_path / "out", RestoreOptions(verify=True), events=events.append)
    assert [set(batch) for batch in glacier.batches] == [names(glacier)]
    waited = frozen.clock.monotonic() - begun
    assert 4 * 3600 <= waited <= 4 * 3600 + 900
    assert contents(tmp_path / "out" / str(frozen.source).lstrip("/")) == contents(frozen.source)
    operations = [event.operation for event in events if isinstance(event, Started)]
    assert operations[:2] == ["thaw", "restore"]
    assert any(isinstance(event, Progress) for event in events)


def test_without_waiting_the_thaw_is_asked_for_and_told(frozen: Place, tmp_path: Path) -> None:
    glacier = frozen.cold
    assert isinstance(glacier, GlacierStorage)
    with frozen.open() as repository:
        manifest = repository.snapshots.live()[0]
        for _ in range(2):  # asking twice is not asking again
            with pytest.raises(ThawPending, match="are being thawed") as caught:
                run_restore(repository, manifest, tmp_path / "out", RestoreOptions(wait=False))
            assert caught.value.exit_status == 18
        assert len(glacier.batches) == 1
        assert not (tmp_path / "out").exists()
        frozen.clock.advance(4 * 3600)
        run_restore(repository, manifest, tmp_path / "out", RestoreOptions(wait=False))
    assert contents(tmp_path / "out" / str(frozen.source).lstrip("/")) == contents(frozen.source)
    assert not frozen.clock.slept


def test_a_restore_that_was_stopped_while_it_waited_goes_on(frozen: Place, tmp_path: Path) -> None:
    glacier = frozen.cold
    assert isinstance(glacier, GlacierStorage)
    begun = frozen.clock.monotonic()

    def stop(event: Event) -> None:
        if frozen.clock.monotonic() - begun > 3600:
            raise CrashPoint

    with frozen.open() as repository, pytest.raises(CrashPoint):
        run_restore(repository, repository.snapshots.live()[0], tmp_path / "out", RestoreOptions(), events=stop)
    assert not (tmp_path / "out").exists()
    assert frozen.restore(ident(frozen), tmp_path / "out") == contents(frozen.source)
    assert len(glacier.batches) == 1
    assert frozen.clock.monotonic() - begun <= 4 * 3600 + 900


def test_what_is_thawed_freezes_again_and_is_asked_for_again(frozen: Place, tmp_path: Path) -> None:
    glacier = frozen.cold
    assert isinstance(glacier, GlacierStorage)
    frozen.restore(ident(frozen), tmp_path / "out", thaw_days=2)
    frozen.clock.advance(3 * DAY)
    with frozen.open() as repository, pytest.raises(ObjectFrozen):
        repository.backend.retrieve(min(names(glacier)))
    frozen.restore(ident(frozen), tmp_path / "out2")
    assert len(glacier.batches) == 2


def test_what_froze_again_while_a_restore_was_held_up_is_asked_for_again(frozen: Place, tmp_path: Path) -> None:
    glacier = frozen.cold
    assert isinstance(glacier, GlacierStorage)

    begun = frozen.clock.monotonic()

    def hold_up(event: Event) -> None:
        assert frozen.clock.monotonic() - begun < 30 * DAY, "it waits for what nobody asked for"
        if isinstance(event, Started) and event.operation == "thaw":
            frozen.clock.advance(8 * DAY)  # as a machine that sleeps

    with frozen.open() as repository:
        manifest = repository.snapshots.live()[0]
        run_restore(repository, manifest, tmp_path / "out", RestoreOptions(thaw_days=7), events=hold_up)
    assert [set(batch) for batch in glacier.batches] == [names(glacier)] * 2
    assert contents(tmp_path / "out" / str(frozen.source).lstrip("/")) == contents(frozen.source)


def test_what_was_readable_before_a_long_wait_is_so_after_it(frozen: Place, tmp_path: Path) -> None:
    glacier = frozen.cold
    assert isinstance(glacier, GlacierStorage)
    first = min(names(glacier))
    (frozen.source / "more").write_bytes(random.Random(9).randbytes(300_000))
    frozen.back_up()
    frozen.move()
    glacier.archive().thaw([first], 1)
    frozen.clock.advance(DAY + 3 * 3600)  # it is readable for another hour
    assert glacier.state(first) == "ready"
    assert frozen.restore(ident(frozen), tmp_path / "out") == contents(frozen.source)
    assert first in glacier.batches[-1]


def test_only_what_is_needed_is_thawed(frozen: Place, tmp_path: Path) -> None:
    glacier = frozen.cold
    assert isinstance(glacier, GlacierStorage)
    (frozen.source / "another").write_bytes(random.Random(9).randbytes(3000))
    frozen.back_up()
    assert frozen.move().packs == 1
    frozen.restore(ident(frozen), tmp_path / "out", path=bytes(frozen.source / "file-00"))
    assert len(glacier.batches) <= 1
    assert len({name for batch in glacier.batches for name in batch}) < len(names(glacier))


def test_verification_reads_what_is_not_frozen(frozen: Place) -> None:
    (frozen.source / "more").write_bytes(random.Random(9).randbytes(300_000))
    frozen.back_up()
    with frozen.open() as repository:
        report = run_verify(repository, None, READ_ALL)
    assert report.ok
    assert [finding.severity for finding in report.findings] == ["warning"]
    assert "frozen and were not read" in report.findings[0].message


def test_a_recall_thaws_first(frozen: Place, tmp_path: Path) -> None:
    with frozen.open() as repository:
        plan = plan_recall(repository)
        with pytest.raises(ThawPending):
            run_recall(repository, plan, wait=False)
        assert run_recall(repository, plan).packs == len(plan.packs)
    frozen.attached = False
    assert frozen.restore(ident(frozen), tmp_path / "out") == contents(frozen.source)


def other_repository(place: Place) -> Store:
    store = Store("other")
    Repository.create(store, OTHER, environment=place.environment).close()
    return store


def into_other(place: Place, store: Store, **options: object) -> CopyResult:
    with place.open() as source, Repository.open(store, OTHER, environment=place.environment) as target:
        return copy_snapshots(source, target, source.snapshots.live(), **options)  # type: ignore[arg-type]


def into_copy(place: Place, store: Store, **options: object) -> CopyResult:
    with place.open() as source:
        return copy_objects(source, store, **options)  # type: ignore[arg-type]


def test_a_copy_thaws_what_it_needs_in_one_batch(frozen: Place) -> None:
    glacier, copy = frozen.cold, Store("copy")
    assert isinstance(glacier, GlacierStorage)
    with pytest.raises(ThawPending, match="are being thawed"):
        into_copy(frozen, copy, wait=False)
    assert copy.objects() == {}
    assert into_copy(frozen, copy).findings == ()
    assert names(copy) == names(glacier)
    assert [set(batch) for batch in glacier.batches] == [names(glacier)]
    frozen.clock.advance(30 * DAY)
    (frozen.source / "more").write_bytes(random.Random(9).randbytes(300_000))
    frozen.back_up()
    into_copy(frozen, copy)
    assert len(glacier.batches) == 1, "what is there needs no thawing"


def test_snapshots_for_another_repository_are_thawed_in_one_batch(frozen: Place, tmp_path: Path) -> None:
    glacier = frozen.cold
    assert isinstance(glacier, GlacierStorage)
    (frozen.source / "more").write_bytes(random.Random(9).randbytes(300_000))
    frozen.back_up()
    frozen.move()
    other = other_repository(frozen)
    with pytest.raises(ThawPending):
        into_other(frozen, other, wait=False)
    assert names(other) == set()
    copied = into_other(frozen, other).copied
    assert len(copied) == 2
    assert [set(batch) for batch in glacier.batches] == [names(glacier)]
    with Repository.open(other, OTHER, environment=frozen.environment) as repository:
        manifest = repository.snapshots.get(copied[-1][1])
        run_restore(repository, manifest, tmp_path / "out", RestoreOptions(verify=True))
    assert contents(tmp_path / "out" / str(frozen.source).lstrip("/")) == contents(frozen.source)


def test_snapshots_that_hold_little_new_need_little_thawing(frozen: Place) -> None:
    glacier = frozen.cold
    assert isinstance(glacier, GlacierStorage)
    other = other_repository(frozen)
    into_other(frozen, other)
    before = names(glacier)
    frozen.clock.advance(30 * DAY)
    (frozen.source / "more").write_bytes(random.Random(9).randbytes(300_000))
    frozen.back_up()
    frozen.move()
    into_other(frozen, other)
    assert set(glacier.batches[-1]).isdisjoint(before)
    assert into_other(frozen, other, wait=False).copied == ()


def test_one_file_is_thawed_before_its_first_byte(frozen: Place) -> None:
    glacier = frozen.cold
    assert isinstance(glacier, GlacierStorage)
    path = next(path for path in sorted(frozen.source.rglob("file-*")) if path.stat().st_size == 3000)
    with frozen.open() as repository:
        manifest = repository.snapshots.live()[0]
        with pytest.raises(ThawPending):
            open_file(repository, manifest, bytes(path), wait=False)
        assert b"".join(open_file(repository, manifest, bytes(path))) == path.read_bytes()
    assert [len(batch) for batch in glacier.batches] == [1]


def test_what_is_needed_of_a_tier_that_is_away_is_told_before_anything_is_written(place: Place) -> None:
    place.back_up()
    place.set()
    place.move()
    place.attached = False
    copy, other = Store("copy"), other_repository(place)
    before = other.objects()
    told = f"{len(names(place.cold))} packs with"
    with pytest.raises(TierNotAttached, match=told):
        into_copy(place, copy)
    with pytest.raises(TierNotAttached, match=told):
        into_other(place, other)
    assert (copy.objects(), other.objects()) == ({}, before)
    path = next(path for path in sorted(place.source.rglob("file-*")) if path.stat().st_size == 3000)
    with place.open() as repository, pytest.raises(TierNotAttached, match="1 packs with"):
        open_file(repository, repository.snapshots.live()[0], bytes(path))


def test_repairs_thaw_what_they_read(frozen: Place) -> None:
    glacier = frozen.cold
    assert isinstance(glacier, GlacierStorage)
    for name in names(frozen.hot, "index/"):
        frozen.hot.delete(name)
    with frozen.open() as repository:
        assert repair_index(repository).findings == ()
        assert [set(batch) for batch in glacier.batches] == [names(glacier)]
        frozen.clock.advance(30 * DAY)
        one = min(names(glacier))
        assert repair_packs(repository, [one]).chunks_lost == 0
    assert glacier.batches[1:] == [(one,)]


def test_collections_do_not_thaw(frozen: Place) -> None:
    glacier = frozen.cold
    assert isinstance(glacier, GlacierStorage)
    for path in frozen.source.rglob("file-*"):
        path.write_bytes(random.Random(str(path)).randbytes(50_000))
    frozen.back_up()
    drop_all_but_last(frozen)
    collect(frozen)
    assert glacier.batches == []
    assert names(glacier) == set()
    assert [info.name for info in glacier.list()] == [MARK]


def test_a_cold_store_that_does_not_answer_is_not_away(place: Place, tmp_path: Path) -> None:
    place.back_up()
    place.set()
    place.move()
    faulty = FaultyBackend(place.cold)
    faulty.script(Fault(kind="error_before", operation="retrieve", repeat=True))
    place.cold = faulty
    with place.open() as repository:
        assert tier_status(repository).attached is None
        with pytest.raises(StorageUnavailable, match="did not answer"):
            run_restore(repository, repository.snapshots.live()[0], tmp_path / "out", RestoreOptions())
