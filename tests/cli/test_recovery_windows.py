"""Spans of recovery are shown so that a terminal of 80 columns has room for them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from backstay.cli.recovery_windows import ShownWindow, print_windows
from backstay.cli.render import zoned_time

LONGEST = zoned_time(datetime(2026, 11, 20, 12, 34, 56, 123456, UTC))  # a commit of PostgreSQL has microseconds


def test_a_window_is_two_lines_of_at_most_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    windows = [
        ShownWindow(about=("orders", "1", "3"), begin=(LONGEST, "12/2000028"), end=(LONGEST, "13/5000000")),
        ShownWindow(about=("shop", "12", "1"), begin=(LONGEST, "0/2000028"), end=("WAL is missing", "0/3000000")),
    ]
    print_windows(("NAME", ">TIMELINE", ">BASES"), ">LSN", windows, {})
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split() == ["NAME", "TIMELINE", "BASES", "TIME", "LSN"]
    assert max(map(len, [heading, *lines])) <= 80
    assert [line.split() for line in lines] == [
        ["orders", "1", "3", "from", *LONGEST.split(), "12/2000028"],
        ["to", *LONGEST.split(), "13/5000000"],
        ["shop", "12", "1", "from", *LONGEST.split(), "0/2000028"],
        ["to", "WAL", "is", "missing", "0/3000000"],
    ]
    assert lines[1].index("to") == lines[0].index("from")


def test_places_of_a_binary_log_have_room_too(capsys: pytest.CaptureFixture[str]) -> None:
    second = LONGEST.partition(".")[0] + "+00:00"
    place = "mysql-bin.000123:123456789"
    print_windows(
        ("NAME", ">DUMPS"),
        ">POSITION",
        [ShownWindow(about=("orders", "3"), begin=(second, place), end=("", ""))],
        {},
    )
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
