"""The zone of this place is that by which the C library shows times, however TZ says it."""

from __future__ import annotations

import time
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from backstay.core.local_zone import LOCAL
from backstay.core.times import Span, parse_moment
from backstay.errors import InvalidRequest

BERLIN = ZoneInfo("Europe/Berlin")
FILE = next(file for place in zoneinfo.TZPATH if (file := Path(place, "Europe/Berlin")).exists())
WINTER = datetime(2026, 11, 18, 23, 30, tzinfo=UTC)


@pytest.fixture(params=["Europe/Berlin", f":{FILE}", str(FILE), "CET-1CEST,M3.5.0,M10.5.0/3"])
def berlin(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("berlin")
def test_it_changes_its_clocks_as_the_place_does() -> None:
    for hours in range(0, 365 * 24, 3):
        moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
        assert moment.astimezone(LOCAL).replace(tzinfo=None) == moment.astimezone(BERLIN).replace(tzinfo=None)
        assert moment.astimezone(LOCAL).astimezone(UTC) == moment


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    "wall", ["2026-03-29 01:59", "2026-03-29 02:30", "2026-03-29 03:00", "2026-10-25 01:59", "2026-10-25 02:30"]
)
@pytest.mark.parametrize("fold", [0, 1])
def test_an_hour_that_is_skipped_or_comes_twice_is_read_as_elsewhere(wall: str, fold: int) -> None:
    naive = datetime.fromisoformat(wall).replace(fold=fold)
    assert naive.replace(tzinfo=LOCAL).utcoffset() == naive.replace(tzinfo=BERLIN).utcoffset()
    moment = naive.replace(tzinfo=BERLIN).astimezone(UTC)
    assert moment.astimezone(LOCAL).fold == moment.astimezone(BERLIN).fold
    assert naive.replace(tzinfo=LOCAL).tzname() in ("CET", "CEST")


@pytest.mark.usefixtures("berlin")
def test_a_time_of_the_other_half_of_the_year_is_read_as_it_is_shown() -> None:
    read = parse_moment("2026-07-01 12:29", now=WINTER, zone=LOCAL)
    assert read == datetime(2026, 7, 1, 10, 29, tzinfo=UTC)
    assert f"{read.astimezone():%Y-%m-%d %H:%M}" == "2026-07-01 12:29"


@pytest.mark.usefixtures("berlin")
def test_the_ends_of_the_calendar() -> None:
    for text in ("0001-01-01", "9999-12-32"):
        with pytest.raises(InvalidRequest):
            parse_moment(text, now=WINTER, zone=LOCAL)
    for span in ("2025y", "2025y10m17d", "2025y10m17d20h", "2026y", "999999999d"):
        assert Span.parse(span).subtract_from(WINTER.astimezone(LOCAL)).year == 1


@pytest.mark.parametrize("rule", ["AAA25", "AAA-24:59:59", "UTC99"])
def test_an_offset_that_is_beyond_a_day_counts_as_none(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    monkeypatch.setenv("TZ", rule)
    time.tzset()
    try:
        assert WINTER.astimezone(LOCAL).replace(tzinfo=UTC) == WINTER
        assert parse_moment("2026-11-18 23:30", now=WINTER, zone=LOCAL) == WINTER
        assert WINTER.astimezone(LOCAL).tzname()
    finally:
        monkeypatch.undo()
        time.tzset()
