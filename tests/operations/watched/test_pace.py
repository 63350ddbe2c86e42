"""When a snapshot of watched files is made, and how waiting for it ends."""

from __future__ import annotations

from pathlib import Path

from backstay.operations.backup.request import BackupResult
from backstay.operations.backup.watching import watch
from backstay.operations.backup.watching_files import Pace
from backstay.testing import FakeClock
from tests.operations.watched.world import World


def test_it_waits_until_nothing_changes_but_not_for_ever(root: Path) -> None:
    clock = FakeClock()

    def change() -> None:
        (root / "d00/file").write_text(str(clock.monotonic()))
        assert world.journal.stirred() is not None

    def is_due() -> bool:
        return world.watched.mark() != mark

    with World([root], clock=clock, pace=Pace(every_s=10, settle_s=2, within_s=60, check_s=3600)) as world:
        mark = world.watched.mark()
        world.snapshot()
        clock.sleep(1000)
        assert not is_due()
        change()
        assert not is_due()
        clock.sleep(2)
        assert is_due()
        mark = world.watched.mark()
        world.snapshot()
        change()
        clock.sleep(9)
        assert not is_due()  # one in ten seconds
        clock.sleep(1)
        assert is_due()
        mark = world.watched.mark()
        world.snapshot()
        for _ in range(60):
            change()
            assert not is_due()
            clock.sleep(1)
        assert is_due()
        mark = world.watched.mark()
        world.snapshot()
        clock.sleep(3600)
        assert is_due()  # a look at everything


def test_where_not_everything_is_told_it_looks_as_often_as_it_would_wait(root: Path) -> None:
    clock = FakeClock()
    with World([root], clock=clock, shared=bool) as world:
        mark = world.watched.mark()
        world.snapshot()
        clock.sleep(59)
        assert world.watched.mark() == mark
        clock.sleep(1)
        assert world.watched.mark() != mark
        assert world.snapshot().snapshot is None


def test_a_path_that_is_not_there_is_looked_for_as_often_as_it_would_wait(root: Path, tmp_path: Path) -> None:
    clock = FakeClock()
    (other := tmp_path / "other").mkdir()
    with World([root, other], clock=clock) as world:
        world.snapshot()
        other.rmdir()
        assert world.snapshot().snapshot is not None
        for _ in range(2):
            mark = world.watched.mark()
            clock.sleep(59)
            assert world.watched.mark() == mark
            clock.sleep(1)
            assert world.watched.mark() != mark
            assert world.snapshot().snapshot is None
        (other / "back").mkdir(parents=True)
        clock.sleep(60)
        world.watched.mark()
        assert world.snapshot().snapshot is not None
        assert world.shown() == world.fresh()


def test_a_signal_ends_it_in_the_middle_of_a_backup(root: Path) -> None:
    with World([root]) as world:
        world.stopped = lambda: bool(world.events)
        result = watch(world.watched, world.stopped, every_s=1, clock=world.clock, made=lambda _: None)
        assert (result.snapshots, list(world.repository.snapshots.live())) == (0, [])


def test_a_signal_that_finds_the_snapshot_made_lets_it_be_told(root: Path) -> None:
    with World([root]) as world:
        world.stopped = lambda: bool(list(world.repository.snapshots.live()))
        told: list[BackupResult] = []
        result = watch(world.watched, world.stopped, every_s=1, clock=world.clock, made=told.append)
        assert result.snapshots == 1
        assert [each.snapshot for each in told] == [each.id for each in world.repository.snapshots.live()]
