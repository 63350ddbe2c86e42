"""Events while an operation runs: a live line on a terminal, JSON lines for programs, else only warnings."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict

from backstay.cli import jsonout
from backstay.cli.render import UNWRITABLE, err, warning_line, write_err
from backstay.core.events import Event, EventSink, name_of

MODES = ("auto", "json", "none")


@contextmanager
def watching(mode: str, environ: Mapping[str, str], *, quiet: bool) -> Iterator[EventSink]:
    """A sink that may be called from any thread."""
    if mode == "json":
        yield _JsonLines().take
    elif mode == "none" or quiet or not sys.stderr.isatty() or environ.get("TERM") == "dumb":
        yield _warnings
    else:
        from backstay.cli.live import LiveLine

        with LiveLine(environ).shown() as sink:
            yield sink


class _JsonLines:
    """One event per line, until one cannot be written: what came after half a line could not be read."""

    def __init__(self) -> None:
        self._cut_off = False

    def take(self, event: Event) -> None:
        """The sink."""
        if self._cut_off:
            return
        try:
            write_err(jsonout.line({"event": name_of(event), **asdict(event)}))
        except UNWRITABLE:
            self._cut_off = True


def _warnings(event: Event) -> None:
    if (line := warning_line(event)) is not None:
        err(line)
