"""Text for people: tables and lines in which nothing from outside can steer the terminal."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Final, TextIO

from backstay.core.events import Event, Warned
from backstay.core.local_zone import LOCAL

if TYPE_CHECKING:
    from rich.console import Console

UNWRITABLE: Final = (OSError, ValueError)  # what a stream raises that is full, gone, or closed
_BOLD, _HEADING, _NORMAL = "\x1b[1m", "\x1b[1;36m", "\x1b[0m"


def safe(text: str) -> str:
    """The text on one line, with escapes for what a terminal would act on or not show.

    Unlike `printable`, for sentences: a backslash in them stays as it is.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def out(text: str = "") -> None:
    """A line for people on stdout."""
    sys.stdout.write(safe(text) + "\n")


def err(text: str = "") -> None:
    """A line for people on stderr. Where it cannot be written nobody is told, and the work goes on."""
    with suppress(*UNWRITABLE):
        write_err(safe(text) + "\n")


def write_err(text: str) -> None:
    """Text on stderr, as it is. Raises one of UNWRITABLE."""
    sys.stderr.write(text)
    sys.stderr.flush()


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def warning_line(event: Event) -> str | None:
    """The line of a warning. Those about one path are told with the result, not twice."""
    return safe(f"warning: {event.message}") if isinstance(event, Warned) and not event.path else None


def console(stream: TextIO, environ: Mapping[str, str]) -> Console:
    """Where the live line is drawn."""
    from rich.console import Console

    return Console(file=stream, markup=False, highlight=False, emoji=False, _environ=environ)


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], environ: Mapping[str, str], *, indent: int = 0
) -> None:
    """A table without lines on stdout; a column whose heading begins with `>` is aligned to the right.

    Long lines are left to the terminal: a path that is cut or folded could not be copied.
    """
    from rich.cells import cell_len

    names = [heading.removeprefix(">") for heading in columns]
    cells = [[safe(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(names, *cells, strict=True)]
    rights = [heading.startswith(">") for heading in columns]

    def line(row: Sequence[str]) -> str:
        blanks = [" " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)]
        padded = [
            blank + cell if right else cell + blank for cell, blank, right in zip(row, blanks, rights, strict=True)
        ]
        return " " * indent + "  ".join(padded).rstrip()

    sys.stdout.write(_styled(line(names), _BOLD, environ) + "\n")
    sys.stdout.writelines(line(row) + "\n" for row in cells)


def print_pairs(pairs: Iterable[tuple[str, str]], environ: Mapping[str, str]) -> None:
    """Two columns without a heading: what, and what it is. Empty values are left out."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        sys.stdout.write(f"{_styled(name.ljust(width), _BOLD, environ)}  {safe(value)}\n")


def print_heading(text: str, environ: Mapping[str, str]) -> None:
    """A line that stands over a table."""
    sys.stdout.write(_styled(safe(text), _HEADING, environ) + "\n")


def _styled(text: str, style: str, environ: Mapping[str, str]) -> str:
    """The text in a style where that can be seen and is wanted (no-color.org)."""
    plain = not sys.stdout.isatty() or environ.get("NO_COLOR") or environ.get("TERM", "dumb") == "dumb"
    return text if plain else f"{style}{text}{_NORMAL}"


def local_time(moment: datetime) -> str:
    """A time on the clock of this place, to the second."""
    return moment.astimezone(LOCAL).strftime("%Y-%m-%d %H:%M:%S")


def zoned_time(moment: datetime) -> str:
    """The same in full and with its zone: a time that `--at` of a recovery takes."""
    return moment.astimezone(LOCAL).isoformat(" ")


def mode_text(mode: int) -> str:
    """Type and permissions as `ls -l` shows them."""
    return stat.filemode(mode)
