"""How long a schedule pauses, and what a policy file expects of its backups."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.control.metrics.expectations import Expectations, PolicyExpectation
from backstay.control.metrics.expected import expectations_of
from backstay.control.metrics.pauses import longest_pause
from tests.control.policies.files import loaded

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.mark.parametrize(
    ("cron", "pause"),
    [
        ("0 2 * * *", DAY),
        ("0 */6 * * *", 6 * HOUR),
        ("0 0 * * 0", 7 * DAY),
        ("0 2 * * 1-5", 3 * DAY),
        ("*/15 9-17 * * 1-5", 2 * DAY + 15 * HOUR + 15 * timedelta(minutes=1)),
        ("* * * * *", timedelta(minutes=1)),
        ("0 0 1 * *", 31 * DAY),
        ("0 0 1 1 *", 366 * DAY),
    ],
)
def test_the_longest_pause_of_a_schedule(cron: str, pause: timedelta) -> None:
    assert longest_pause(cron, "UTC") == pause


def test_clocks_that_change_lengthen_no_pause() -> None:
    assert longest_pause("0 2 * * *", "Europe/Berlin") == DAY
    assert longest_pause("0 * * * *", "America/New_York") == HOUR


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["*/20", "7", "0,30"]),
    st.sampled_from(["*", "*/5", "3", "8-18", "1,13"]),
    st.sampled_from(["*", "1-5", "0", "2,4"]),
)
def test_it_is_what_looking_at_all_times_of_a_month_finds(minute: str, hour: str, weekday: str) -> None:
    cron = f"{minute} {hour} * * {weekday}"
    begin = datetime(2026, 3, 1, tzinfo=UTC)
    times = CronSim(cron, begin)
    longest, before = timedelta(0), next(times)
    while before < begin + 28 * DAY:
        after = next(times)
        longest, before = max(longest, after - before), after
    assert longest_pause(cron, "UTC") == longest


def test_a_policy_file_says_what_is_expected() -> None:
    found = expectations_of(
        loaded("""
backup_manager:
  encryption: {key_rotation_days: 30}
  alerts: {capacity: 80, forecast: 14d, denials: 5, denials_within: 1h, running: 6h, waiting: 10min, rpo_factor: 2}
policies:
  shop:
    sources: [{type: sqlite, path: /x}, {type: sqlite, path: /y, name: db}]
    verification: {schedule: "0 4 * * 0", restore_test: true}
    alerts: {rpo: 26h}
  other:
    sources: [{type: sqlite, path: /x}]
    alerts: {rehearsal: 30d}
""")
    )
    assert found == Expectations(
        policies={
            "shop": PolicyExpectation(
                sources=("shop", "shop-db"), rpo=26 * HOUR, verification=14 * DAY, rehearsal=14 * DAY
            ),
            "other": PolicyExpectation(sources=("other",), rehearsal=30 * DAY),
        },
        factor=2,
        capacity_percent=80,
        forecast=14 * DAY,
        denials=5,
        denials_within=HOUR,
        key_age=30 * DAY,
        running=6 * HOUR,
        waiting=timedelta(minutes=10),
    )


def test_what_holds_for_all_holds_for_a_policy_that_says_nothing() -> None:
    source = "sources: [{type: sqlite, path: /x}]"
    found = expectations_of(
        loaded(f"""
backup_manager: {{alerts: {{rpo: 2d, verification: 8d}}}}
policies: {{a: {{{source}}}, b: {{{source}, alerts: {{rpo: 1h}}}}}}
""")
    )
    assert found.policies == {
        "a": PolicyExpectation(sources=("a",), rpo=2 * DAY, verification=8 * DAY),
        "b": PolicyExpectation(sources=("b",), rpo=HOUR, verification=8 * DAY),
    }
    assert expectations_of(None) == Expectations()
