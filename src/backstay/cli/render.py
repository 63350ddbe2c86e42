"""Text for people: tables and lines in which nothing from outside can steer the terminal."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 10_000  # columns of a table that no terminal cuts


def safe(text: str) -> str:
    """The text on one line, with escapes for what a terminal would act on or not show.

    Unlike `printable`, for sentences: a backslash in them stays as it is.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def console(stream: TextIO, environ: Mapping[str, str]) -> Console:
    """Where tables go: colours only on a terminal, no line broken elsewhere."""
    from rich.console import Console

    width = None if stream.isatty() else PIPED_WIDTH
    return Console(
        file=stream, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False, _environ=environ
    )


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], environ: Mapping[str, str], *, indent: int = 0
) -> None:
    """A table without lines on stdout; a column whose heading begins with `>` is aligned to the right."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for position, heading in enumerate(columns):
        right = heading.startswith(">")
        last = position == len(columns) - 1
        table.add_column(
            heading.removeprefix(">"), justify="right" if right else "left", overflow="fold", no_wrap=not last
        )
    for row in rows:
        table.add_row(*(Text(safe(cell)) for cell in row))
    console(sys.stdout, environ).print(Padding(table, (0, 0, 0, indent), expand=False))


def print_pairs(pairs: Iterable[tuple[str, str]], environ: Mapping[str, str]) -> None:
    """Two columns without a heading: what, and what it is. Empty values are left out."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        if value:
            table.add_row(name, Text(safe(value)))
    console(sys.stdout, environ).print(table)


def print_heading(text: str, environ: Mapping[str, str]) -> None:
    """A line that stands over a table."""
    from rich.text import Text

    console(sys.stdout, environ).print(Text(safe(text), style="bold cyan"))


def local_time(moment: datetime) -> str:
    """A time on the clock of this place, to the second."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def plural(count: int, one: str, many: str = "") -> str:
    """`1 file`, `2 files`, `1 234 files`."""
    from backstay.core.quantities import format_count

    return f"{format_count(count)} {one if count == 1 else many or one + 's'}"


def mode_text(mode: int) -> str:
    """Type and permissions as `ls -l` shows them."""
    return stat.filemode(mode)
