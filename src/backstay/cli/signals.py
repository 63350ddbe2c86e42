"""Ctrl-C and SIGTERM: the first stops gently, a second at once; the repository is good either way."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from backstay.core.clock import Clock

INTERRUPTED = 130
SAME_S = 0.5  # launchers pass a Ctrl-C on that the terminal had already sent to us: within this time it is the same
_ABRUPT = b"\x1b[?25h\nerror: interrupted again\ncause: you did not want to wait\nhint:  run the same command again\n"


@contextmanager
def interruptible(clock: Clock) -> Iterator[None]:
    """Within, both signals raise KeyboardInterrupt once; works in the main thread, elsewhere nothing changes."""
    handler = _Handler(clock)
    try:
        before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread
        yield
        return
    hook, sys.unraisablehook = sys.unraisablehook, handler.unraisable
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, previous in before.items():
            signal.signal(number, previous)


class _Handler:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of handlers
        now = self._clock.monotonic()
        if self._first is None:
            self._first = now
            raise KeyboardInterrupt
        if now - self._first > SAME_S:
            # Nothing needs tidying: a crash at any point leaves only objects that no snapshot names.
            os.write(2, _ABRUPT.removeprefix(b"" if os.isatty(2) else b"\x1b[?25h\n"))
            os._exit(INTERRUPTED)

    def unraisable(self, what: Any) -> None:  # noqa: ANN401 - the type has no public name
        """An interrupt that fell into a finalizer, where it cannot be raised, comes again."""
        if what.exc_type is KeyboardInterrupt:
            self._first = None
            signal.raise_signal(signal.SIGINT)
        else:
            sys.__unraisablehook__(what)
