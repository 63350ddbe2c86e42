"""How long a rehearsal waits for a program or an answer, and who ends such a wait."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from backstay.core.clock import Clock
from backstay.core.events import EventSink, Progress
from backstay.errors import BackstayError, RestoreFailed

_EVERY_S: Final = 0.2
_OPCODES: Final = 100_000  # of SQLite's virtual machine between two looks, some milliseconds


def waiting(check: str, events: EventSink, clock: Clock, patience_s: float = math.inf) -> Callable[[], None]:
    """What is to be called again and again during a wait, as often as one likes.

    It raises RestoreFailed when the time is up, and what `events` raises when somebody asks for the end.
    """
    begun = clock.monotonic()
    told = begun

    def tick() -> None:
        nonlocal told
        now = clock.monotonic()
        if now - begun > patience_s:
            raise RestoreFailed(
                f"{check} takes too long",
                cause=f"it did not end within {patience_s:g} s",
                hint="see what it waits for",
            )
        if now - told >= _EVERY_S:
            told = now
            events(Progress(files=0, bytes=0, current=check))

    return tick


@contextmanager
def stoppable(session: sqlite3.Connection, tick: Callable[[], None]) -> Iterator[None]:
    """Within, what `tick` raises ends a query of SQLite, and is raised."""
    raised: list[BackstayError] = []

    def must_end() -> bool:
        try:
            tick()
        except BackstayError as error:
            raised.append(error)
        return bool(raised)

    session.set_progress_handler(must_end, _OPCODES)
    try:
        yield
    except sqlite3.Error:
        if raised:
            raise raised[0] from None
        raise
    finally:
        session.set_progress_handler(None, 0)
