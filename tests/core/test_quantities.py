"""Sizes, counts and lengths of time as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.core.quantities import format_age, format_count, format_duration, format_size, plural

NOW = datetime(2026, 11, 18, 14, 0, tzinfo=UTC)
DAY = 86400


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (102348, "99.9 KiB"),
        (102399, "100 KiB"),
        (1023 * 1024, "1023 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (3 * 1024**3 // 2, "1.5 GiB"),
        (5 * 1024**4, "5.0 TiB"),
        (2**60, "1.0 EiB"),
        (5000 * 2**60, "5000 EiB"),
        (-1536, "-1.5 KiB"),
    ],
)
def test_size(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.property
@given(size=st.integers(0, 2**70))
def test_size_is_near_the_truth(size: int) -> None:
    number, unit = format_size(size).split(" ")
    told = float(number) * 1024 ** ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB").index(unit)
    assert abs(told - size) <= 0.06 * size


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (999, "999"), (1000, "1 000"), (1234567, "1 234 567"), (-1000, "-1 000")]
)
def test_count(count: int, text: str) -> None:
    assert format_count(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.085, "85 ms"),
        (0.0999, "0.1 s"),
        (1.2, "1.2 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (7800, "2 h 10 min"),
        (2 * DAY - 31, "47 h 59 min"),
        (2 * DAY - 1, "2 d 00 h"),
        (3 * DAY + 4 * 3600, "3 d 04 h"),
        (-1.2, "-1.2 s"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "just now"),
        (59, "just now"),
        (60, "1 min ago"),
        (3599, "59 min ago"),
        (3600, "1 h ago"),
        (DAY - 1, "23 h ago"),
        (DAY, "1 day ago"),
        (13 * DAY, "13 days ago"),
        (14 * DAY, "2 weeks ago"),
        (60 * DAY, "8 weeks ago"),
        (61 * DAY, "2 months ago"),
        (729 * DAY, "23 months ago"),
        (730 * DAY, "2 years ago"),
        (-30, "just now"),
        (-7200, "in 2 h"),
        (-DAY, "in 1 day"),
    ],
)
def test_age(seconds: int, text: str) -> None:
    assert format_age(NOW - timedelta(seconds=seconds), now=NOW) == text


@pytest.mark.parametrize(
    ("count", "words", "text"),
    [
        (0, ("file",), "0 files"),
        (1, ("file",), "1 file"),
        (1234, ("file",), "1 234 files"),
        (2, ("directory", "directories"), "2 directories"),
    ],
)
def test_plural(count: int, words: tuple[str, ...], text: str) -> None:
    assert plural(count, *words) == text
