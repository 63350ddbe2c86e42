"""Events while an operation runs: a live line on a terminal, JSON lines for programs, else only warnings."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict

from backstay.cli import jsonout
from backstay.cli.render import err, warning_line
from backstay.core.events import Event, EventSink, name_of

MODES = ("auto", "json", "none")


@contextmanager
def watching(mode: str, environ: Mapping[str, str], *, quiet: bool) -> Iterator[EventSink]:
    """A sink that may be called from any thread."""
    if mode == "json":
        yield _json_line
    elif mode == "none" or quiet or not sys.stderr.isatty() or environ.get("TERM") == "dumb":
        yield _warnings
    else:
        from backstay.cli.live import LiveLine

        with LiveLine(environ).shown() as sink:
            yield sink


def _json_line(event: Event) -> None:
    sys.stderr.write(jsonout.line({"event": name_of(event), **asdict(event)}))
    sys.stderr.flush()


def _warnings(event: Event) -> None:
    if (line := warning_line(event)) is not None:
        err(line)
