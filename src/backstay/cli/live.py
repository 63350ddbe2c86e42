"""The live line on a terminal: what, how far, how much, how fast, how long still."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from backstay.cli.render import UNWRITABLE, console, warning_line
from backstay.core.events import Event, EventSink, Finished, Progress, Started
from backstay.core.quantities import format_count, format_duration, format_size


class LiveLine:
    """One line that is drawn anew: what, how far, how much, how fast, how long still."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._console = console(cast(TextIO, _Screen(sys.stderr)), environ)
        self._lock = threading.Lock()
        self._bars: RichProgress | None = None
        self._task: TaskID | None = None
        self._totals = (0, 0)

    @contextmanager
    def shown(self) -> Iterator[EventSink]:
        """Draw while the operation runs; the line is gone afterwards."""
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), _Figures())
        with RichProgress(*columns, console=self._console, transient=True, refresh_per_second=5) as self._bars:
            yield self.take

    def take(self, event: Event) -> None:
        """The sink."""
        with self._lock:
            if (line := warning_line(event)) is not None:
                self._console.print(Text(line, style="yellow"))
            elif isinstance(event, Started):
                self._begin(event)
            elif isinstance(event, Progress):
                self._advance(event)
            elif isinstance(event, Finished):
                self._end()

    def _begin(self, event: Started) -> None:
        assert self._bars is not None
        self._end()
        self._totals = (event.total_files, event.total_bytes)
        known = event.total_files or event.total_bytes
        self._task = self._bars.add_task(event.operation, total=1000 if known else None, files=0, bytes=0)

    def _advance(self, event: Progress) -> None:
        if self._bars is None or self._task is None:
            return
        done = max(
            event.files / self._totals[0] if self._totals[0] else 0.0,
            event.bytes / self._totals[1] if self._totals[1] else 0.0,
        )
        self._bars.update(self._task, completed=1000 * min(done, 0.999), files=event.files, bytes=event.bytes)

    def _end(self) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None


class _Screen:
    """A terminal that may go away during the work: what cannot be drawn any more is left out."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever else a stream has
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(*UNWRITABLE):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(*UNWRITABLE):
            self._stream.flush()


class _Figures(ProgressColumn):
    """What stands behind the bar."""

    def render(self, task: Task) -> Text:
        return Text(_figures(task))


def _figures(task: Task) -> str:
    files, size = int(task.fields["files"]), int(task.fields["bytes"])
    elapsed = task.elapsed or 0.0
    words = [f"{format_count(files)} items", format_size(size)]
    if elapsed > 1 and size:
        words.append(f"{format_size(round(size / elapsed))}/s")
    if task.total and elapsed > 2 and task.completed > 5:
        left = elapsed * (task.total - task.completed) / task.completed
        words.append(f"{format_duration(round(left))} left")
    return "  ".join(words)
