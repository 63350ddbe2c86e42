"""Spans of recovery as a table of two lines each, which fits into a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from backstay.cli.render import print_table


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownWindow:
    """What it is of, and its two ends, each with its time and its place in the log."""

    about: Sequence[str]
    begin: tuple[str, str]
    end: tuple[str, str]


def print_windows(about: Sequence[str], place: str, windows: Iterable[ShownWindow], environ: Mapping[str, str]) -> None:
    """All windows; `about` and `place` are headings."""
    rows: list[Sequence[str]] = []
    for window in windows:
        rows += [(*window.about, "from", *window.begin), ("",) * len(about) + ("to", *window.end)]
    print_table((*about, "", "TIME", place), rows, environ)
