"""How files of a binary log lie among the WAL objects: cut into slices of one length (docs/format.md, "WAL").

A file of such a log may have a gigabyte and more, an object may not. The last slice is as long as what is left. When
all slices of a file are there, its end is stored as well: it tells from the names alone that the file is complete.
"""

from __future__ import annotations

import re
from typing import Final

SLICE: Final = 16 << 20  # bytes
SLICE_NAME: Final = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\.[0-9]{6,10}\.(?:s[0-9]{5}|end)"
_NAME: Final = re.compile(SLICE_NAME)


def slice_name(log: str, number: int) -> str:
    """What a slice of a file is called in place of a file."""
    return f"{log}.s{number:05d}"


def end_name(log: str) -> str:
    """What the end of a file is called: its content is the length of the file, in decimal digits."""
    return f"{log}.end"


def slice_of(file: str) -> tuple[str, int | None] | None:
    """The file, and the number of its slice or None for its end; None for the name of something else."""
    if not _NAME.fullmatch(file):
        return None
    log, _, number = file.rpartition(".")
    return log, None if number == "end" else int(number[1:])
