"""Repositories with a cold tier: by age, away, frozen; and what backup, restore, verify and gc make of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backstay.core.events import Event, Progress, Started, Warned, ignore
from backstay.errors import (
    InvalidRequest,
    ObjectFrozen,
    RestoreConflict,
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
    MoveResult,
    plan_move,
    plan_recall,
    remove_tier,
    run_move,
    run_recall,
    set_tier,
    tier_status,
)
from backstay.operations.verify.run import VerifyOptions, run_verify
from backstay.repository.collector import Collector
from backstay.repository.repository import Environment, Repository
from backstay.storage.backend import StorageBackend
from backstay.storage.cold_store import MARK
from backstay.storage.mirrored import Mirrored
from backstay.storage.tiered import NOTES
from backstay.testing import CrashPoint, FakeClock, Fault, FaultyBackend, GlacierStorage, MemoryStorage
from backstay.trust.secrets import Secret
from tests.operations.copies import SECRET, Store, back_up, contents, make_source, open_alone

DAY = 86400
OTHER = Secret.new_keyfile()
READ_ALL = VerifyOptions(read_data=1)


@dataclass
class Place:
    """A repository whose cold tier can be taken away, on a clock that the test moves."""

    source: Path
    clock: FakeClock = field(default_factory=FakeClock)
    hot: StorageBackend = field(init=False)
    cold: StorageBackend = field(init=False)
    attached: bool = True

    def __post_init__(self) -> None:
        self.hot, self.cold = MemoryStorage(clock=self.clock), MemoryStorage(clock=self.clock)
        Repository.create(self.hot, SECRET, environment=self.environment).close()

    def _open_cold(self, address: str, create: bool) -> StorageBackend:
        if not self.attached:
            raise InvalidRequest(f"cannot open {address}", cause="it is in a drawer")
        return self.cold

    @property
    def environment(self) -> Environment:
        return Environment(pack_target=256 << 10, threads=2, clock=self.clock, open_cold=self._open_cold)

    def open(self) -> Repository:
        return Repository.open(self.hot, SECRET, environment=self.environment)

    def back_up(self) -> str:
        self.clock.advance(1)  # ids sort by time
        with self.open() as repository:
            return back_up(repository, self.source)

    def set(self, after_s: int = 0, address: str = "memory:drawer") -> None:
        with self.open() as repository:
            set_tier(repository, address, after_s)

    def move(self) -> MoveResult:
        with self.open() as repository:
            return run_move(repository, plan_move(repository))

    def restore(self, snapshot: str, to: Path, **options: object) -> dict[str, bytes | str]:
        with self.open() as repository:
            manifest = repository.snapshots.get(snapshot)
            result = run_restore(repository, manifest, to, RestoreOptions(verify=True, **options))  # type: ignore[arg-type]
        assert not result.errors
        return contents(to / str(self.source).lstrip("/"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(make_source(tmp_path / "source"))


@pytest.fixture
def frozen(place: Place) -> Place:
    """The same with everything in an archive."""
    place.cold = GlacierStorage(clock=place.clock)
    place.back_up()
    place.set()
    assert place.move().packs
    return place


def names(store: StorageBackend, prefix: str = "packs/") -> set[str]:
    return {info.name for info in store.list(prefix)}


def ident(place: Place) -> str:
    with place.open() as repository:
        return repository.snapshots.live()[-1].id


# --- moving


def test_all_data_moves_and_everything_still_works(place: Place, tmp_path: Path) -> None:
    first = place.back_up()
    before = names(place.hot)
    place.set()
    assert place.move().packs == len(before)
    assert names(place.hot) == set()
    assert names(place.cold) == before
    assert names(place.hot, "meta/")
    assert place.restore(first, tmp_path / "out") == contents(place.source)
    with place.open() as repository:
        assert run_verify(repository, None, READ_ALL).findings == ()
    (place.source / "more").write_bytes(random.Random(9).randbytes(300_000))
    second = place.back_up()
    assert place.restore(second, tmp_path / "out2") == contents(place.source)
    assert place.move().packs == 1


def test_moving_again_moves_nothing(place: Place) -> None:
    place.back_up()
    place.set()
    place.move()
    assert place.move() == MoveResult(packs=0, bytes=0)


def test_packs_move_when_they_are_old_enough(place: Place) -> None:
    place.back_up()
    old = names(place.hot)
    place.set(after_s=30 * DAY)
    place.clock.advance(20 * DAY)
    (place.source / "more").write_bytes(random.Random(9).randbytes(300_000))
    place.back_up()
    with place.open() as repository:
        plan = plan_move(repository)
        assert plan.packs == ()
        assert plan.waiting == len(old) + 1
    place.clock.advance(10 * DAY)
    with place.open() as repository:
        plan = plan_move(repository)
        assert {name for name, _ in plan.packs} == old
        assert plan.waiting == 1
    assert names(place.cold) == set()  # a plan moves nothing
    place.move()
    assert names(place.cold) == old


def test_packs_that_a_collection_condemned_do_not_move(place: Place) -> None:
    place.back_up()
    place.set()
    with place.open() as repository:
        collector = Collector(repository)
        repository.snapshots.drop(repository.snapshots.live()[0].id, "for a test", place.clock)
        collector.condemn(collector.plan(allow_empty=True))
    assert place.move().packs == 0


@pytest.mark.crash
@pytest.mark.parametrize("at", range(1, 9))
@pytest.mark.parametrize("where", ["hot", "cold"])
def test_a_move_that_is_killed_is_finished_by_the_next(place: Place, where: str, at: int, tmp_path: Path) -> None:
    first = place.back_up()
    place.set()
    whole = {"hot": place.hot, "cold": place.cold}
    faulty = FaultyBackend(whole[where])
    setattr(place, where, faulty)
    with place.open() as repository:
        plan = plan_move(repository)
        faulty.script(Fault(kind="crash_after", operation="store" if at % 2 else "delete", at=(at + 1) // 2))
        try:
            run_move(repository, plan)
        except CrashPoint:
            faulty.heal()
    setattr(place, where, whole[where])
    assert place.restore(first, tmp_path / "out") == contents(place.source)
    place.move()
    assert names(place.hot) == set()
    with place.open() as repository:
        assert run_verify(repository, None, READ_ALL).findings == ()


def test_a_repository_without_a_cold_tier_says_so(place: Place) -> None:
    with place.open() as repository:
        for work in (plan_move, plan_recall, remove_tier):
            with pytest.raises(InvalidRequest, match="has no cold tier"):
                work(repository)
        assert tier_status(repository).cold is None


def test_the_status_counts_both_tiers(place: Place) -> None:
    place.back_up()
    place.set(after_s=DAY)
    with place.open() as repository:
        before = tier_status(repository)
    assert (before.cold, before.after_s, before.attached) == ("memory:drawer", DAY, True)
    place.clock.advance(2 * DAY)
    place.move()
    place.attached = False
    with place.open() as repository:
        after = tier_status(repository)
    assert after.attached is False
    assert (after.hot_packs, after.cold_packs, after.cold_bytes) == (0, before.hot_packs, before.hot_bytes)


# --- setting


def test_an_address_with_a_password_is_not_remembered(place: Place) -> None:
    with pytest.raises(InvalidRequest, match="password"):
        place.set(address="webdavs://me:secret@host/cold")
    assert names(place.hot, "tiers/") == set()


def test_another_store_cannot_take_the_place_of_one_that_is_in_use(place: Place, tmp_path: Path) -> None:
    first = place.back_up()
    place.set()
    place.move()
    old, place.cold = place.cold, MemoryStorage()
    with pytest.raises(InvalidRequest, match="is not the cold tier that holds packs"):
        place.set(address="memory:elsewhere")
    place.cold = old  # the same disk under another address
    place.set(address="memory:elsewhere")
    assert place.restore(first, tmp_path / "out") == contents(place.source)


def test_the_repository_is_no_cold_tier_of_itself(place: Place) -> None:
    with pytest.raises(InvalidRequest, match="itself"):
        place.set(address=place.hot.url)


def test_a_damaged_record_hides_the_address_but_loses_nothing(place: Place, tmp_path: Path) -> None:
    first = place.back_up()
    place.set()
    place.move()
    (name,) = names(place.hot, "tiers/")
    place.hot.store(name, b"rubbish" * 50, overwrite=True)
    with place.open() as repository, pytest.raises(TierNotAttached):
        run_restore(repository, repository.snapshots.get(first), tmp_path / "out", RestoreOptions())
    place.attached = True
    with place.open() as repository:
        assert "cannot be read" not in tier_status(repository).damage
        assert tier_status(repository).damage
    place.set()
    assert place.restore(first, tmp_path / "out") == contents(place.source)


def test_what_was_brought_back_ends_the_tier(place: Place, tmp_path: Path) -> None:
    first = place.back_up()
    place.set()
    place.move()
    with place.open() as repository:
        with pytest.raises(InvalidRequest, match="in use"):
            remove_tier(repository)
        assert run_recall(repository, plan_recall(repository)).packs == len(names(place.cold))
        remove_tier(repository)
    place.attached = False
    assert names(place.hot, NOTES) == set()
    assert place.restore(first, tmp_path / "out") == contents(place.source)
    with place.open() as repository:
        assert repository.tiered is None
        assert run_verify(repository, None, READ_ALL).findings == ()


# --- away


def test_backups_go_on_while_the_tier_is_away(place: Place) -> None:
    place.back_up()
    place.set()
    place.move()
    place.attached = False
    (place.source / "more").write_bytes(random.Random(9).randbytes(100_000))
    place.back_up()
    assert sum(info.size for info in place.hot.list("packs/")) < 300_000  # what is cold was not sent again


def test_a_restore_says_what_must_be_attached_before_it_writes(place: Place, tmp_path: Path) -> None:
    first = place.back_up()
    place.set()
    place.move()
    place.attached = False
    cold = [info.size for info in place.cold.list("packs/")]
    with place.open() as repository:
        manifest = repository.snapshots.get(first)
        plan = plan_restore(repository, manifest, tmp_path / "out", RestoreOptions())
        assert plan.cold is not None
        assert not plan.cold.attached
        assert (len(plan.cold.packs), plan.cold.bytes) == (len(cold), sum(cold))
        with pytest.raises(TierNotAttached, match=f"memory:drawer is not attached: {len(cold)} packs") as caught:
            run_restore(repository, manifest, tmp_path / "out", RestoreOptions())
        assert "memory:drawer" in caught.value.hint
        with pytest.raises(TierNotAttached, match=f"{len(cold)} packs"):
            run_verify(repository, None, READ_ALL)
    assert not (tmp_path / "out").exists()
    place.attached = True
    assert place.restore(first, tmp_path / "out") == contents(place.source)


def test_what_is_there_already_needs_no_disk(place: Place, tmp_path: Path) -> None:
    first = place.back_up()
    place.restore(first, tmp_path / "out")
    place.set()
    place.move()
    place.attached = False
    with place.open() as repository:
        result = run_restore(repository, repository.snapshots.get(first), tmp_path / "out", RestoreOptions())
    assert result.unchanged


def test_conflicts_are_told_before_a_disk_is_asked_for(place: Place, tmp_path: Path) -> None:
    first = place.back_up()
    place.restore(first, tmp_path / "out")
    (tmp_path / "out" / str(place.source / "file-00").lstrip("/")).write_bytes(b"mine")
    place.set()
    place.move()
    place.attached = False
    with place.open() as repository, pytest.raises(RestoreConflict):
        run_restore(repository, repository.snapshots.get(first), tmp_path / "out", RestoreOptions())


def test_a_part_that_is_hot_is_restored_while_the_rest_is_away(place: Place, tmp_path: Path) -> None:
    place.back_up()
    place.set()
    place.move()
    more = place.source / "more"
    more.write_bytes(random.Random(9).randbytes(300_000))
    second = place.back_up()
    place.attached = False
    with place.open() as repository:
        manifest = repository.snapshots.get(second)
        run_restore(repository, manifest, tmp_path / "out", RestoreOptions(path=bytes(more)))
        assert (tmp_path / "out/more").read_bytes() == more.read_bytes()
        with pytest.raises(TierNotAttached):
            run_restore(repository, manifest, tmp_path / "out2", RestoreOptions())


def test_plain_verification_tells_what_it_did_not_look_at(place: Place) -> None:
    place.back_up()
    place.set()
    place.move()
    place.attached = False
    with place.open() as repository:
        report = run_verify(repository)
    (finding,) = report.findings
    assert report.ok
    assert finding.severity == "warning"
    assert "not attached" in finding.message
    place.attached = True
    with place.open() as repository:
        assert run_verify(repository).findings == ()


def test_verification_finds_what_the_cold_tier_lost(place: Place) -> None:
    place.back_up()
    (place.source / "another").write_bytes(random.Random(9).randbytes(3000))
    place.back_up()
    place.set()
    place.move()
    lost, short, *_ = sorted(names(place.cold))
    place.cold.delete(lost)
    place.cold.store(short, b"short", overwrite=True)
    with place.open() as repository:
        report = run_verify(repository)
    assert {finding.subject for finding in report.findings} == {lost, short}
    assert not report.ok


# --- collection


def drop_all_but_last(place: Place) -> None:
    with place.open() as repository:
        for manifest in repository.snapshots.live()[:-1]:
            repository.snapshots.drop(manifest.id, "for a test", place.clock)


def replaced_source(place: Place) -> None:
    """Nothing of the first snapshot is in the second."""
    place.back_up()
    place.set()
    place.move()
    for path in place.source.rglob("file-*"):
        path.write_bytes(random.Random(str(path)).randbytes(50_000))
    place.back_up()
    drop_all_but_last(place)


def collect(place: Place, events: Callable[[Event], None] = ignore) -> object:
    with place.open() as repository:
        collector = Collector(repository, events=events)
        return collector.execute(collector.plan())


def test_dead_packs_are_deleted_in_the_cold_tier(place: Place) -> None:
    replaced_source(place)
    assert names(place.cold)
    collect(place)
    assert names(place.cold) == names(place.hot, NOTES) == set()
    with place.open() as repository:
        assert run_verify(repository, None, READ_ALL).findings == ()


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


# --- together with copies


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


# --- frozen


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
