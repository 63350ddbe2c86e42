"""Repositories with a cold tier: by age, away, frozen; and what backup, restore, verify and gc make of it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from backstay.errors import (
    InvalidRequest,
    RestoreConflict,
    TierNotAttached,
)
from backstay.operations.restore.run import RestoreOptions, plan_restore, run_restore
from backstay.operations.tiers.moving import (
    MoveResult,
    plan_move,
    plan_recall,
    remove_tier,
    run_move,
    run_recall,
    tier_status,
)
from backstay.operations.verify.run import run_verify
from backstay.repository.collection.collector import Collector
from backstay.repository.logs.tiers import TierLog
from backstay.storage.tiered import NOTES
from backstay.testing import CrashPoint, Fault, FaultyBackend, MemoryStorage
from tests.operations.copies import contents
from tests.operations.tiers.places import DAY, READ_ALL, Place, names

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


def test_who_sets_the_tier_while_another_does_is_told_and_changes_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.open() as repository:
        tiers = TierLog(place.hot, repository.keyring)
        tiers.write("memory:first", 0, repository.clock)
        with monkeypatch.context() as patched:
            patched.setattr(TierLog, "read", lambda _: None)  # what was so before the other one
            with pytest.raises(InvalidRequest, match="at the same time"):
                tiers.write("memory:second", 0, repository.clock)
        found = tiers.read()
    assert found is not None
    assert (found.number, found.cold) == (1, "memory:first")


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


def test_the_repository_is_no_cold_tier_of_itself_however_it_is_spelt(place: Place) -> None:
    place.back_up()
    before = names(place.hot, "")
    place.cold = place.hot
    with pytest.raises(InvalidRequest, match="cannot be a cold tier"):
        place.set(address="file:another-way-to-spell-it")
    assert names(place.hot, "") == before


@pytest.mark.parametrize("sign", ["repo.json", f"keys/slots/{'0' * 64}", "export/medium"])
def test_a_store_that_others_have_in_use_is_no_cold_tier(place: Place, sign: str) -> None:
    place.cold.store(sign, b"theirs")
    with pytest.raises(InvalidRequest, match="cannot be a cold tier"):
        place.set()
    assert names(place.cold, "") == {sign}
    assert names(place.hot, "tiers/") == set()


def test_nothing_moves_when_the_cold_tier_has_become_a_copy_of_the_repository(place: Place, tmp_path: Path) -> None:
    first = place.back_up()
    place.set()
    before = names(place.hot)
    for info in place.hot.list():
        place.cold.store(info.name, place.hot.retrieve(info.name))
    with pytest.raises(InvalidRequest, match="cannot be a cold tier"):
        place.move()
    assert names(place.hot) == before
    assert place.restore(first, tmp_path / "out") == contents(place.source)


def test_what_was_moved_into_a_copy_before_can_be_brought_back(place: Place) -> None:
    place.back_up()
    place.set()
    place.move()
    place.cold.store("repo.json", place.hot.retrieve("repo.json"))
    with place.open() as repository:
        run_recall(repository, plan_recall(repository))
    assert names(place.hot) == names(place.cold)


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


def test_a_recall_when_all_is_back_brings_nothing(place: Place) -> None:
    place.back_up()
    place.set()
    place.move()
    with place.open() as repository:
        plan = plan_recall(repository)
        assert run_recall(repository, plan).packs == len(plan.packs) > 0
        for late in (plan, plan_recall(repository)):  # of the loser of two at once, and of the next one
            assert run_recall(repository, late) == MoveResult(packs=0, bytes=0)


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
    assert {finding.subject for finding in report.findings if finding.check == "integrity"} == {lost, short}
    assert {finding.check for finding in report.findings} == {"integrity", "completeness"}
    assert not report.ok
