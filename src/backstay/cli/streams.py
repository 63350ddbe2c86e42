"""The standard streams are there from the start, whatever of them was closed: no other file may take their places."""

from __future__ import annotations

import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper

_STREAMS = (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY))


class ClosedOutput(TextIOWrapper):
    """An output that was closed: what has to be read fails on it as on a full disk, what else is said is left out."""

    def __init__(self) -> None:
        unwritable = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        super().__init__(BufferedWriter(FileIO(unwritable, "w")), encoding="utf-8")


def open_closed() -> None:
    """Put /dev/null in the place of each stream that is closed."""
    closed = [(number, *stream) for number, stream in enumerate(_STREAMS) if not _is_open(number)]
    for _, _, mode in closed:
        os.set_inheritable(os.open(os.devnull, mode), True)  # gets the lowest free number, which is that of the stream
    for number, name, _ in closed:  # when all three are there: what these open themselves must not be one of them
        setattr(sys, name, os.fdopen(number, encoding="utf-8") if name == "stdin" else ClosedOutput())


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
