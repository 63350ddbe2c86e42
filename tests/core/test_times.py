"""Spans and moments as people write them."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.core.times import Span, parse_length, parse_moment
from backstay.errors import InvalidRequest

BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 18, 23, 30, 15, tzinfo=UTC)  # already the 19th in Berlin


def iso(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("text", "span", "told"),
    [
        ("30d", Span(days=30), "30d"),
        ("1y6m", Span(years=1, months=6), "1y6m"),
        ("12h", Span(hours=12), "12h"),
        ("2w", Span(days=14), "14d"),
        ("1w3d", Span(days=10), "10d"),
        ("1y2m3d4h", Span(years=1, months=2, days=3, hours=4), "1y2m3d4h"),
        ("2h30min", Span(hours=2, minutes=30), "2h30min"),
        ("45s", Span(seconds=45), "45s"),
        (" 3 Weeks 1 day ", Span(days=22), "22d"),
        (
            "1 year 2 months 5 hours 6 minutes 7 seconds",
            Span(years=1, months=2, hours=5, minutes=6, seconds=7),
            "1y2m5h6min7s",
        ),
        ("0d", Span(), "0d"),
    ],
)
def test_span_parses(text: str, span: Span, told: str) -> None:
    assert Span.parse(text) == span
    assert str(span) == told
    assert bool(span) is (told != "0d")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "30",
        "d",
        "-3d",
        "3x",
        "2h30m",
        "1d1d",
        "1d2y",
        "1.5h",
        "3d!",
        "1e3d",
        "٣d",
        "9999999999d",
        "3 d d",
        "P3D",
    ],
)
def test_span_refuses(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Span.parse(text)
    assert "30d" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90s", 90), ("5min", 300), ("1h30min5s", 5405), ("2 weeks", 14 * 86_400), ("0d", 0)],
)
def test_a_length_is_the_same_at_any_time(text: str, seconds: int) -> None:
    assert parse_length(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["5m", "1y", "1m2d", "5", "", "-1s", "999999999w"])
def test_a_length_refuses_what_is_not_fixed(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_length(text)


def test_a_span_is_as_long_as_the_calendar_makes_it() -> None:
    assert Span.parse("1m").length_before(datetime(2026, 3, 1, tzinfo=UTC)) == timedelta(days=28)


def test_span_says_what_is_wrong() -> None:
    with pytest.raises(InvalidRequest, match="'m' is out of order"):
        Span.parse("2h30m")
    with pytest.raises(InvalidRequest, match="no unit 'fortnights'"):
        Span.parse("2 fortnights")
    with pytest.raises(InvalidRequest, match="negative"):
        Span(days=-1)


@pytest.mark.parametrize(
    ("moment", "span", "earlier"),
    [
        ("2026-03-31T12:00+00:00", "1m", "2026-02-28T12:00+00:00"),
        ("2024-03-31T12:00+00:00", "1m", "2024-02-29T12:00+00:00"),
        ("2024-02-29T12:00+00:00", "1y", "2023-02-28T12:00+00:00"),
        ("2026-01-15T12:00+00:00", "1m", "2025-12-15T12:00+00:00"),
        ("2026-12-15T12:00+00:00", "12m", "2025-12-15T12:00+00:00"),
        ("2026-03-31T12:00+00:00", "1m1d", "2026-02-27T12:00+00:00"),
        ("2026-11-18T12:00+00:00", "1d2h3min4s", "2026-11-17T09:56:56+00:00"),
    ],
)
def test_span_steps_on_the_calendar(moment: str, span: str, earlier: str) -> None:
    assert Span.parse(span).subtract_from(iso(moment)) == iso(earlier)


@pytest.mark.parametrize(
    ("moment", "span", "earlier"),
    [
        pytest.param("2026-03-29T10:00+00:00", "1d", "2026-03-28T11:00+00:00", id="the same hour of a day of 23 hours"),
        pytest.param("2026-03-29T10:00+00:00", "24h", "2026-03-28T10:00+00:00", id="hours are exact"),
        pytest.param("2026-10-25T11:00+00:00", "1d", "2026-10-24T10:00+00:00", id="the same hour of a day of 25 hours"),
        pytest.param(
            "2026-03-30T00:30+00:00", "1d", "2026-03-29T01:30+00:00", id="02:30 that was skipped becomes 03:30"
        ),
        pytest.param("2026-10-26T01:30+00:00", "1d", "2026-10-25T00:30+00:00", id="02:30 that came twice is the first"),
        pytest.param("2026-10-25T01:30+00:00", "1h", "2026-10-25T00:30+00:00", id="from the second 02:30 to the first"),
    ],
)
def test_span_follows_the_clocks_of_the_zone(moment: str, span: str, earlier: str) -> None:
    found = Span.parse(span).subtract_from(iso(moment).astimezone(BERLIN))
    assert found.astimezone(UTC) == iso(earlier)
    assert found.tzinfo is BERLIN


@pytest.mark.parametrize("text", ["2026y", "30000y", "999999999d", "999999999w", "999999999h", "999999999m"])
def test_span_stops_at_the_beginning_of_the_calendar(text: str) -> None:
    assert Span.parse(text).subtract_from(NOW) == datetime.min.replace(tzinfo=UTC)


counts = st.integers(0, 40)
exact_spans = st.builds(Span, hours=counts, minutes=counts, seconds=counts)
spans = exact_spans | st.builds(Span, years=counts, months=counts, days=counts, hours=counts, seconds=counts)
moments = st.integers(0, 4 * 10**9).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
local_moments = st.builds(datetime.astimezone, moments, st.sampled_from([UTC, BERLIN]))


@pytest.mark.property
@given(span=spans)
def test_span_reads_what_it_writes(span: Span) -> None:
    assert Span.parse(str(span)) == span


@pytest.mark.property
@given(span=spans, moment=local_moments)
def test_span_goes_back_and_never_less_than_its_hours(span: Span, moment: datetime) -> None:
    earlier = span.subtract_from(moment)
    exact = timedelta(hours=span.hours, minutes=span.minutes, seconds=span.seconds)
    gone = moment.astimezone(UTC) - earlier.astimezone(UTC)
    assert gone >= exact + timedelta(days=span.days) - timedelta(hours=2)
    if not (span.years or span.months or span.days):
        assert gone == exact


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", "2026-11-18T23:30:15+00:00"),
        (" NOW ", "2026-11-18T23:30:15+00:00"),
        ("today", "2026-11-18T23:00:00+00:00"),
        ("yesterday", "2026-11-17T23:00:00+00:00"),
        ("yesterday 14:30", "2026-11-18T13:30:00+00:00"),
        ("2026-11-18", "2026-11-17T23:00:00+00:00"),
        ("20261118", "2026-11-17T23:00:00+00:00"),
        ("2026-07-01", "2026-06-30T22:00:00+00:00"),
        ("2026-11-18 14:30", "2026-11-18T13:30:00+00:00"),
        ("2026-11-18 14:30:05", "2026-11-18T13:30:05+00:00"),
        ("2026-11-18T14:30:05.25", "2026-11-18T13:30:05.250000+00:00"),
        ("2026-11-18T14:30:05,123456789Z", "2026-11-18T14:30:05.123456+00:00"),
        ("2026-11-18T14:30Z", "2026-11-18T14:30:00+00:00"),
        ("2026-11-18t14:30z", "2026-11-18T14:30:00+00:00"),
        ("2026-11-18 14:30:05 UTC", "2026-11-18T14:30:05+00:00"),
        ("2026-11-18T14:30+05:45", "2026-11-18T08:45:00+00:00"),
        ("2026-11-18 14:30:05.5 -0500", "2026-11-18T19:30:05.500000+00:00"),
        ("2026-11-18 14:30:05+02", "2026-11-18T12:30:05+00:00"),
        ("20261118T143005Z", "2026-11-18T14:30:05+00:00"),
        ("2026-03-29 02:30", "2026-03-29T01:30:00+00:00"),
        ("2026-10-25 02:30", "2026-10-25T00:30:00+00:00"),
        ("@1700000000", "2023-11-14T22:13:20+00:00"),
        ("@1700000000.5", "2023-11-14T22:13:20.500000+00:00"),
        ("@0.123456789", "1970-01-01T00:00:00.123456+00:00"),
        ("@-1.5", "1969-12-31T23:59:58.500000+00:00"),
        ("2h ago", "2026-11-18T21:30:15+00:00"),
        ("1 month 2 days ago", "2026-10-16T22:30:15+00:00"),
        ("0d ago", "2026-11-18T23:30:15+00:00"),
    ],
)
def test_moment_parses(text: str, moment: str) -> None:
    found = parse_moment(text, now=NOW, zone=BERLIN)
    assert found.isoformat() == iso(moment).isoformat()
    assert found.tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "soon", "2026", "2026-13-01", "2026-02-29", "2026-11-18 25:00", "2026-11-18 14", "2026-11-18x14:30",
        "2026-11-18 14:30:61", "2026-11-18 14:30Z+01:00", "2026-11-18 14:30 CET", "2026-11-18Z", "1700000000", "@",
        "@12x", "@1.2.3", "@999999999999", "2h", "ago", "2x ago", "yesterdayish", "tomorrow", "２０２６-11-18",
        "0001-01-01", "9999-12-31T23:59-12:00", "2026-11-18 14:30+25:00",
    ],
)  # fmt: skip
def test_moment_refuses(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_moment(text, now=NOW, zone=BERLIN)
    assert "write for example" in caught.value.hint


@pytest.mark.property
@given(text=st.text("0123456789-:.,+@TZ agohdmyw", max_size=24) | st.text(max_size=24))
def test_any_text_is_a_moment_or_an_invalid_request(text: str) -> None:
    with suppress(InvalidRequest):
        assert parse_moment(text, now=NOW, zone=BERLIN).tzinfo is UTC


@pytest.mark.property
@given(moment=st.datetimes(timezones=st.just(UTC)))
def test_moment_reads_what_isoformat_writes(moment: datetime) -> None:
    assert parse_moment(moment.isoformat(), now=NOW, zone=BERLIN) == moment
    assert parse_moment(moment.isoformat(" ").replace("+00:00", "Z"), now=NOW, zone=BERLIN) == moment
