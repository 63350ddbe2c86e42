"""Cron expressions: which field is wrong, and when one comes next, also in the nights when clocks change."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.control.policies.cron import check_cron
from backstay.control.policies.fire_times import FireTimes
from backstay.control.policies.values import Wrong

BERLIN = ZoneInfo("Europe/Berlin")


def next_time(cron: str, after: datetime) -> datetime:
    """By the clocks of Berlin."""
    found = FireTimes(cron, BERLIN).next(after)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("61 0 * * *", "'61 0 * * *' is no cron expression: the minute (1st field) cannot be '61'"),
        ("0 24 * * *", "'0 24 * * *' is no cron expression: the hour (2nd field) cannot be '24'"),
        ("0 0 0 * *", "'0 0 0 * *' is no cron expression: the day of the month (3rd field) cannot be '0'"),
        ("0 0 * 13 *", "'0 0 * 13 *' is no cron expression: the month (4th field) cannot be '13'"),
        ("0 0 * * 8", "'0 0 * * 8' is no cron expression: the day of the week (5th field) cannot be '8'"),
        ("0 0 * * 5L/2", "'0 0 * * 5L/2' is no cron expression: the day of the week (5th field) cannot be '5L/2'"),
        ("*/0 * * * *", "'*/0 * * * *' is no cron expression: the minute (1st field) cannot be '*/0'"),
        ("@daily", "'@daily' is no cron expression: it has 1 field, not 5"),
        ("0 0 0 * * *", "'0 0 0 * * *' is no cron expression: it has 6 fields, not 5"),
        ("0 0 30 2 *", "'0 0 30 2 *' never comes: no such month has such a day"),
    ],
)
def test_the_wrong_field_is_told(text: str, message: str) -> None:
    with pytest.raises(Wrong) as told:
        check_cron(text)
    assert str(told.value) == message


@pytest.mark.parametrize("text", ["0 0 * * 0", "*/15 * * * *", "0 2 29 2 *", "0 0 l * *", "5,10-20/5 1 * jan mon-fri"])
def test_good_ones_stay_as_they_are(text: str) -> None:
    assert check_cron(text) == text
    assert next_time(text, datetime(2026, 1, 1, tzinfo=UTC)) > datetime(2026, 1, 1, tzinfo=UTC)


def test_a_time_that_a_clock_change_skips_comes_once() -> None:
    before = datetime(2026, 3, 28, 12, tzinfo=UTC)
    first = next_time("30 2 * * *", before)
    assert first == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)  # 03:00, when clocks go from 02:00 to 03:00
    assert next_time("30 2 * * *", first) == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)


def test_a_time_that_a_clock_change_repeats_comes_once() -> None:
    first = next_time("30 2 * * *", datetime(2026, 10, 24, 12, tzinfo=UTC))
    assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert next_time("30 2 * * *", first) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


@pytest.mark.property
@settings(deadline=None)
@given(st.text(st.sampled_from("0159*/-,L#W ?AMON²"), max_size=24))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        good = check_cron(text) == text
    except Wrong as error:
        good = "cron" in str(error) or "never comes" in str(error)
    assert good
