"""Ctrl-C, SIGTERM and SIGHUP: the first stops gently, a second at once; the repository is good either way.

An operation is never interrupted in the middle of a step, where it would go on to tidy up with half a state: the
signal is kept until its next event. What gives none for GRACE_S is left at once, as a crash would: nothing that is
stored needs tidying. What has more to tidy than that, such as a server that it has started, says so.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from backstay.core.clock import Clock
from backstay.errors import Interrupted

INTERRUPTED = 130
GRACE_S = 5.0
SAME_S = 0.5  # launchers pass a Ctrl-C on that the terminal had already sent to us: within this time it is the same
ASKED_TO_STOP = "a signal asked it to stop, as Ctrl-C does; the repository is as good as before"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOW_CURSOR = b"\x1b[?25h\n"
_ABRUPT = b"error: interrupted\ncause: signals asked it to stop at once\nhint:  run the same command again\n"


class Interrupts:
    """What to do about signals to stop, for the length of one command."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first: float | None = None
        self._deferred = False
        self._tidies = False
        self._patient = False

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within, signals come here; works in the main thread, elsewhere nothing changes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        stopping = set(_SIGNALS)
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # as nohup asks for
            stopping.remove(signal.SIGHUP)
        before = {number: signal.signal(number, self._take) for number in stopping}
        before[signal.SIGALRM] = signal.signal(signal.SIGALRM, _leave)
        hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            sys.unraisablehook = hook
            for number, previous in before.items():
                signal.signal(number, previous)

    @contextmanager
    def deferred(self, *, tidies: bool = False) -> Iterator[Callable[[], None]]:
        """Within, signals wait until the function is called; one that comes too late changes nothing.

        What `tidies` has all the time that it takes once it was interrupted, unless another signal comes.
        """
        outer, self._deferred = (self._deferred, self._tidies), True
        self._tidies = tidies or self._tidies
        try:
            yield self._raise_if_asked
        finally:
            self._deferred, self._tidies = outer
            if not self._deferred:
                signal.setitimer(signal.ITIMER_REAL, 0)

    @contextmanager
    def noted(self) -> Iterator[Callable[[], bool]]:
        """Within, a first signal is only noted, for what runs until one comes; the function says whether one did."""
        self._patient = True
        try:
            yield lambda: self._first is not None
        finally:
            self._patient = False

    def too_late(self) -> None:
        """From here on a first signal changes nothing: what was asked for is done, and is yet to be told.

        One that came before, during the last step, does not end the program either, however long the rest takes.
        """
        self._patient = True
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _raise_if_asked(self) -> None:
        """Each time, not only the first: that one may have come too late for a snapshot, but not for what follows."""
        if self._first is not None and self._deferred and threading.current_thread() is threading.main_thread():
            if self._tidies:
                signal.setitimer(signal.ITIMER_REAL, 0)
            raise Interrupted("interrupted", cause=ASKED_TO_STOP)

    def _take(self, number: int, frame: FrameType | None) -> None:
        now = self._clock.monotonic()
        if self._first is None:
            self._first = now
            if self._patient:
                return
            if not self._deferred:
                raise KeyboardInterrupt
            signal.setitimer(signal.ITIMER_REAL, GRACE_S)
        elif now - self._first > SAME_S:
            _leave(number, frame)

    def _unraisable(self, what: Any) -> None:  # noqa: ANN401 - the type has no public name
        """An interrupt that fell into a finalizer, where it cannot be raised, comes again."""
        if what.exc_type is KeyboardInterrupt:
            self._first = None
            signal.raise_signal(signal.SIGINT)
        else:
            sys.__unraisablehook__(what)


def _leave(number: int, frame: FrameType | None) -> None:
    del number, frame
    try:
        os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + _ABRUPT)
    finally:  # also where it cannot be told
        os._exit(INTERRUPTED)
