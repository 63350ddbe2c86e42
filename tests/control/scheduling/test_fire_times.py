"""The times of expressions, on ordinary days and on the nights when clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.control.policies.fire_times import FireTimes
from backstay.control.scheduling.timing import jitter
from tests.control.scheduling.walk import walk

# A change of clocks in each: ordinary, by half an hour, at midnight both ways, and one that left out a whole day.
CHANGES = {
    "Europe/Berlin": [datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)],
    "America/New_York": [datetime(2026, 3, 8, 7, tzinfo=UTC), datetime(2026, 11, 1, 6, tzinfo=UTC)],
    "Australia/Lord_Howe": [datetime(2026, 4, 4, 15, tzinfo=UTC), datetime(2026, 10, 3, 15, 30, tzinfo=UTC)],
    "America/Havana": [datetime(2026, 3, 8, 5, tzinfo=UTC), datetime(2026, 11, 1, 5, tzinfo=UTC)],
    "Africa/Cairo": [datetime(2026, 4, 23, 22, tzinfo=UTC), datetime(2026, 10, 29, 21, tzinfo=UTC)],
    "Pacific/Apia": [datetime(2011, 12, 30, 10, tzinfo=UTC)],
    "Asia/Kathmandu": [datetime(2026, 1, 31, 18, 15, tzinfo=UTC)],
    "UTC": [datetime(2028, 2, 29, tzinfo=UTC)],
}
MINUTES = ["*", "*/15", "*/7", "0", "30", "0,30", "59", "10-20/5"]
HOURS = ["*", "*/6", "*/5", "0", "1", "2", "3", "23", "1-3", "0,2,12"]
DAYS = ["*", "29", "28,30", "1-15/7", "25"]
WEEKDAYS = ["*", "0", "1-5", "6", "7"]

expressions = st.builds(
    "{} {} {} {} {}".format,
    st.sampled_from(MINUTES),
    st.sampled_from(HOURS),
    st.sampled_from(DAYS),
    st.sampled_from(["*", "3,10,11", "2", "12"]),
    st.sampled_from(WEEKDAYS),
)
nights = st.sampled_from([(zone, change) for zone, changes in CHANGES.items() for change in changes])


@pytest.mark.property
@given(cron=expressions, night=nights, before=st.integers(1, 600), seconds=st.integers(0, 59))
@settings(deadline=None, max_examples=40)
def test_they_are_those_of_a_walk_through_all_minutes(
    cron: str, night: tuple[str, datetime], before: int, seconds: int
) -> None:
    zone, change = ZoneInfo(night[0]), night[1]
    begin = change - timedelta(minutes=before, seconds=seconds)
    end = change + timedelta(hours=30)
    right = walk(cron, zone, begin, end)
    times = FireTimes(cron, zone)
    found = []
    for time in times.after(begin):
        if time > end:
            break
        found.append(time)
    assert found == right
    # one after the other, as a service that is started anew each time would
    one_by_one, last = [], begin
    while (time := times.next(last)) is not None and time <= end:  # type: ignore[assignment]
        one_by_one.append(time)
        last = time
    assert one_by_one == right
    assert times.latest(begin, end) == (right[-1] if right else None)
    assert times.newest(begin, end, 3) == right[-3:]
    assert times.count(begin, end, at_most=10_000) == len(right)
    assert times.count(begin, end, at_most=2) == min(2, len(right))


@pytest.mark.property
@given(cron=expressions, night=nights, offset=st.integers(-180, 180))
@settings(deadline=None, max_examples=60)
def test_the_next_time_is_always_later(cron: str, night: tuple[str, datetime], offset: int) -> None:
    moment = night[1] + timedelta(minutes=offset)
    found = FireTimes(cron, ZoneInfo(night[0])).next(moment)
    assert found is not None
    assert found > moment


BERLIN = ZoneInfo("Europe/Berlin")


def first(cron: str, after: datetime, count: int) -> list[str]:
    """Times by the clocks of Berlin."""
    found = islice(FireTimes(cron, BERLIN).after(after), count)
    return [f"{time.astimezone(BERLIN):%d %H:%M %Z}" for time in found]


def test_a_time_that_clocks_pass_over_comes_when_they_go_on() -> None:
    saturday = datetime(2026, 3, 28, 12, tzinfo=UTC)
    assert first("30 2 * * *", saturday, 2) == ["29 03:00 CEST", "30 02:30 CEST"]
    assert first("15,45 2 * * *", saturday, 2) == ["29 03:00 CEST", "30 02:15 CEST"]  # once
    assert first("0 3 * * *", saturday, 2) == ["29 03:00 CEST", "30 03:00 CEST"]


def test_a_time_that_clocks_show_twice_comes_once() -> None:
    saturday = datetime(2026, 10, 24, 12, tzinfo=UTC)
    assert first("30 2 * * *", saturday, 2) == ["25 02:30 CEST", "26 02:30 CET"]
    second_showing = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10 for the second time
    assert first("30 2 * * *", second_showing, 1) == ["26 02:30 CET"]


def test_what_comes_every_so_often_goes_by_the_time_that_passes() -> None:
    before = datetime(2026, 10, 25, 0, 15, tzinfo=UTC)
    assert first("0,30 * * * *", before, 4) == ["25 02:30 CEST", "25 02:00 CET", "25 02:30 CET", "25 03:00 CET"]


def test_leap_days_come_in_leap_years() -> None:
    times = islice(FireTimes("0 2 29 2 *", ZoneInfo("UTC")).after(datetime(2026, 1, 1, tzinfo=UTC)), 3)
    assert [time.year for time in times] == [2028, 2032, 2036]


def test_words_are_read_in_any_case() -> None:
    sunday = FireTimes("0 0 * jan sun", ZoneInfo("UTC")).next(datetime(2026, 1, 1, tzinfo=UTC))
    assert sunday == datetime(2026, 1, 4, tzinfo=UTC)


def test_years_of_minutes_are_not_counted_one_by_one() -> None:
    times = FireTimes("* * * * *", ZoneInfo("Europe/Berlin"))
    now = datetime(2026, 6, 1, 12, 0, 30, tzinfo=UTC)
    assert times.latest(now - timedelta(days=3650), now) == datetime(2026, 6, 1, 12, tzinfo=UTC)
    assert times.count(now - timedelta(days=3650), now, at_most=1000) == 1000


@pytest.mark.property
@given(st.integers(0, 9), st.integers(0, 10**9), st.integers(0, 86_400))
@settings(deadline=None, max_examples=30)
def test_jitter_is_within_its_bound_and_the_same_for_all(number: int, seconds: int, longest: int) -> None:
    schedule, time = str(number), datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    found = jitter(schedule, time, longest)
    assert timedelta(0) <= found <= timedelta(seconds=longest)
    assert found == jitter(schedule, time.astimezone(ZoneInfo("Asia/Tokyo")), longest)


def test_jitter_spreads() -> None:
    time = datetime(2026, 1, 1, tzinfo=UTC)
    found = {jitter(f"schedule {number}", time, 599) for number in range(1000)}
    assert len(found) > 400
