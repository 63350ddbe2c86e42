"""Which times run: laws on generated schedules and looks at the clock, without a database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.catalog.models import ScheduleRecord
from backstay.control.scheduling.deciding import MOST_AT_ONCE, PUNCTUAL, LastJob, decide
from backstay.control.scheduling.timing import jitter, preview, set_next, settle
from tests.control.scheduling.walk import walk

BEGIN = datetime(2026, 3, 28, 20, 7, 31, tzinfo=UTC)  # the evening before clocks change
BERLIN = ZoneInfo("Europe/Berlin")


def schedule(cron: str = "0 * * * *", **given_: Any) -> ScheduleRecord:
    made = ScheduleRecord(
        id="01" * 13, name="n", policy="p", type="full", cron=cron, timezone="Europe/Berlin", enabled=True, sources=[]
    )
    for name, value in {"coalesce": True, "jitter_s": 0, "options": {}, **given_}.items():
        setattr(made, name, value)
    set_next(made, BEGIN, BEGIN)
    return made


@dataclass(frozen=True)
class Ran:
    time: datetime
    at: datetime


def looks(record: ScheduleRecord, moments: list[datetime]) -> Iterator[Ran]:
    """What runs if somebody looks at these moments."""
    for now in moments:
        while record.next_run_at is not None and record.next_run_at <= now:
            decision = decide(record, now, last=None)
            decision.apply(record, now)
            yield from (Ran(time, now) for time in decision.times)


crons = st.sampled_from(["0 * * * *", "*/15 * * * *", "30 2 * * *", "0,20 1-4 * * *", "* * * * *", "15 */5 * * *"])
moments = st.lists(st.integers(1, 20_000), min_size=1, max_size=12).map(
    lambda gaps: [BEGIN + timedelta(seconds=sum(gaps[: at + 1])) for at in range(len(gaps))]
)


@pytest.mark.property
@given(cron=crons, when=moments)
@settings(deadline=None, max_examples=60)
def test_the_last_of_all_times_since_the_last_look_runs_once(cron: str, when: list[datetime]) -> None:
    right, before = [], BEGIN
    for now in when:
        right += [Ran(time, now) for time in walk(cron, BERLIN, before, now)[-1:]]
        before = now
    assert list(looks(schedule(cron), when)) == right


@pytest.mark.property
@given(cron=crons, when=moments)
@settings(deadline=None, max_examples=40)
def test_each_time_runs_once_where_they_do_not_coalesce(cron: str, when: list[datetime]) -> None:
    right, before = [], BEGIN
    for now in when:
        right += [Ran(time, now) for time in walk(cron, BERLIN, before, now)[-MOST_AT_ONCE:]]
        before = now
    assert list(looks(schedule(cron, coalesce=False), when)) == right


@pytest.mark.property
@given(cron=crons, when=moments, grace=st.integers(0, 3000))
@settings(deadline=None, max_examples=40)
def test_nothing_runs_that_is_later_than_its_grace(cron: str, when: list[datetime], grace: int) -> None:
    allowed = max(timedelta(seconds=grace), PUNCTUAL)
    right, before = [], BEGIN
    for now in when:
        last = walk(cron, BERLIN, before, now)[-1:]
        right += [Ran(time, now) for time in last if now - time <= allowed]
        before = now
    assert list(looks(schedule(cron, misfire_grace_s=grace), when)) == right


@pytest.mark.property
@given(cron=crons.filter(lambda cron: cron != "* * * * *"), when=moments, longest=st.integers(1, 899))
@settings(deadline=None, max_examples=40)
def test_with_jitter_nothing_runs_early_twice_or_never(cron: str, when: list[datetime], longest: int) -> None:
    record = schedule(cron, jitter_s=longest, coalesce=False)
    ran = list(looks(record, when))
    assert all(one.at >= one.time + jitter(record.id, one.time, longest) for one in ran)
    come = [time for time in walk(cron, BERLIN, BEGIN, when[-1]) if time + jitter(record.id, time, longest) <= when[-1]]
    assert {one.time for one in ran} <= set(come)
    assert len({one.time for one in ran}) == len(ran)
    gaps = max((later - earlier for earlier, later in zip([BEGIN, *when], when, strict=False)), default=timedelta(0))
    if gaps < timedelta(minutes=15) * (MOST_AT_ONCE - 2):
        assert [one.time for one in ran] == come


def test_a_run_that_has_not_ended_keeps_the_next_from_running_and_this_is_said() -> None:
    record = schedule()
    now = BEGIN + timedelta(hours=1)
    for status in ("queued", "running"):
        decision = decide(record, now, last=LastJob(status=status))
        assert decision.times == ()
        assert decision.missed == "2026-03-28 21:00 UTC: the run before had not ended"
    assert decide(record, now, last=LastJob(status="failed")).times == (datetime(2026, 3, 28, 21, tzinfo=UTC),)


def test_what_was_missed_is_said_even_if_it_is_made_up_for() -> None:
    record = schedule()
    decision = decide(record, BEGIN + timedelta(hours=5), last=None)
    assert decision.missed == "4 times before 2026-03-29 01:00 UTC did not run, and are made up for by it"
    late = decide(schedule(misfire_grace_s=300), BEGIN + timedelta(hours=5), last=None)
    assert late.missed == "5 times up to 2026-03-29 01:00 UTC came too late: nothing ran until 2026-03-29 01:07 UTC"


def test_a_year_without_a_look_is_one_run() -> None:
    record = schedule("* * * * *")
    now = BEGIN + timedelta(days=400)
    (ran,) = looks(record, [now])
    assert now - ran.time < timedelta(minutes=1)
    assert record.last_missed is not None
    assert record.last_missed.startswith("999 times or more before ")
    assert record.next_run_at is not None
    assert record.next_run_at > now


def test_a_clock_that_was_ahead_does_not_keep_a_schedule_waiting() -> None:
    record = schedule("0 * * * *")
    ahead = BEGIN + timedelta(days=1000)
    assert len(list(looks(record, [ahead]))) == 1
    now = BEGIN + timedelta(minutes=70)  # it was set right
    assert settle(record, now)
    assert record.next_run_at == datetime(2026, 3, 28, 22, tzinfo=UTC)
    assert not settle(record, now)


def test_a_clock_that_goes_back_a_little_runs_nothing_twice() -> None:
    record = schedule("0 * * * *")
    at_nine = datetime(2026, 3, 28, 21, 0, 5, tzinfo=UTC)
    assert len(list(looks(record, [at_nine]))) == 1
    back = at_nine - timedelta(minutes=30)
    assert not settle(record, back)
    assert list(looks(record, [back, at_nine, at_nine + timedelta(minutes=30)])) == []


def test_previews_are_what_runs_then() -> None:
    record = schedule("30 2 * * *", jitter_s=600)
    shown = preview(record, 4, BEGIN)
    for moment in shown:
        assert record.next_run_at == moment
        assert list(looks(record, [moment - timedelta(seconds=1)])) == []
        assert len(list(looks(record, [moment]))) == 1
