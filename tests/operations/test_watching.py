"""A watch makes a snapshot for each change, tells a failure once, and ends when it is asked to."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from backstay.core.events import Event, Warned
from backstay.errors import CorruptedSource, NotFound, SourceRefused, StorageUnavailable, StorageUnfit
from backstay.operations.backup.request import BackupResult
from backstay.operations.backup.watching import LONGEST_PAUSE_S, WatchResult, watch
from backstay.testing import FakeClock

EVERY = 10.0


def result(number: int) -> BackupResult:
    return BackupResult(
        snapshot=f"s{number}",
        kind="full",
        parent=None,
        files_new=1,
        files_changed=0,
        files_unchanged=0,
        files=1,
        dirs=0,
        bytes_scanned=1,
        bytes_read=1,
        bytes_added=1,
        duration_s=0.0,
        errors=(),
    )


@dataclass
class Source:
    """What its marks and backups do, one after the other; what is left of the last repeats."""

    marks: list[object | Exception]
    backups: list[Exception | None] = field(default_factory=list)
    clock: FakeClock = field(default_factory=FakeClock)
    looked: list[float] = field(default_factory=list)
    made: list[float] = field(default_factory=list)

    def mark(self) -> object:
        self.looked.append(self.clock.monotonic())
        found = self.marks.pop(0) if len(self.marks) > 1 else self.marks[0]
        if isinstance(found, Exception):
            raise found
        return found

    def back_up(self) -> BackupResult:
        error = self.backups.pop(0) if self.backups else None
        if error is not None:
            raise error
        self.made.append(self.clock.monotonic())
        return result(len(self.made))


@dataclass
class Ran:
    result: WatchResult
    warnings: list[str]


def ran(source: Source, until: float) -> Ran:
    warnings: list[str] = []

    def sink(event: Event) -> None:
        assert isinstance(event, Warned)
        warnings.append(event.message)

    def stopped() -> bool:
        return source.clock.monotonic() >= until

    seen: list[BackupResult] = []
    found = watch(source, stopped, every_s=EVERY, clock=source.clock, made=seen.append, events=sink)
    assert [made.snapshot for made in seen] == [f"s{number + 1}" for number in range(len(source.made))]
    return Ran(found, warnings)


def test_each_change_makes_one_snapshot() -> None:
    source = Source(["a", "a", "a", "b", "b", "c", "a"])
    done = ran(source, until=80)
    assert source.made == pytest.approx([0, 20, 40, 50])
    assert source.looked[1:] == pytest.approx([0, 10, 20, 30, 40, 50, 60, 70])
    assert done.result == WatchResult(snapshots=4, last="s4")
    assert done.warnings == []


def test_it_stops_at_once_between_two_looks() -> None:
    source = Source(["a"])
    ran(source, until=13)
    assert source.clock.monotonic() == pytest.approx(13, abs=0.3)


def test_what_is_away_is_told_once_and_tried_again_with_growing_pauses() -> None:
    locked = SourceRefused("the database is locked", cause="busy")
    source = Source(["a", "a", "b"], backups=[None, *[locked] * 3, None])
    done = ran(source, until=200)
    assert source.looked[2:6] == pytest.approx([10, 20, 40, 80], abs=0.5)
    assert len(source.made) == 2  # the change is not forgotten
    assert len(done.warnings) == 2
    assert done.warnings[0].startswith("the database is locked")
    assert done.warnings[1] == "it works again"


def test_another_failure_is_told_too_and_pauses_have_an_end() -> None:
    gone, away = NotFound("there is no database"), StorageUnavailable("the store is away")
    source = Source(["a", "a", *[gone] * 3, "b"], backups=[None, *[away] * 8])
    done = ran(source, until=3000)
    assert [warning.partition(";")[0].partition(":")[0] for warning in done.warnings] == [
        "there is no database",
        "the store is away",
        "it works again",
    ]
    pauses = [two - one for one, two in zip(source.looked, source.looked[1:], strict=False)]
    assert max(pauses) == pytest.approx(LONGEST_PAUSE_S, abs=0.5)


@pytest.mark.parametrize("error", [CorruptedSource("damaged"), StorageUnfit("no atomic create"), RuntimeError()])
def test_what_does_not_pass_ends_it(error: Exception) -> None:
    with pytest.raises(type(error)):
        ran(Source(["a"], backups=[error]), until=100)


def test_nothing_to_watch_at_first_is_an_error() -> None:
    with pytest.raises(NotFound):
        ran(Source([NotFound("there is no database")]), until=100)
