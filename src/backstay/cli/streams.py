"""The standard streams are there from the start, whatever of them was closed: no other file may take their places."""

from __future__ import annotations

import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import TextIO

_STREAMS = (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY))


class ClosedOutput(TextIOWrapper):
    """A standard output that was closed: a result fails on it as on a full disk, what else is said is left out."""

    def __init__(self) -> None:
        unwritable = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        super().__init__(BufferedWriter(FileIO(unwritable, "w")), encoding="utf-8")


def open_closed() -> None:
    """Put /dev/null in the place of each stream that is closed."""
    for number, (name, mode) in enumerate(_STREAMS):
        if not _is_open(number):
            opened = os.open(os.devnull, mode)  # the lowest free number, which is this one
            os.set_inheritable(opened, True)
            setattr(sys, name, _stream(name, opened))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _stream(name: str, number: int) -> TextIO:
    if name == "stdout":
        return ClosedOutput()
    return os.fdopen(number, "r" if name == "stdin" else "w", encoding="utf-8")
