"""Wakes a thread that waits for a socket when something happened on another thread."""

from __future__ import annotations

import os
from contextlib import suppress


class Bell:
    """One more thing for `select` to wait for. It goes on ringing until it is hushed."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._was_rung = False

    def fileno(self) -> int:
        return self._descriptor

    def ring(self) -> None:
        os.eventfd_write(self._descriptor, 1)
        self._was_rung = True  # after it: who hushes in between finds it ringing once more, and never ringing for good

    def hush(self) -> None:
        """Call this before looking at what happened, so that nothing is missed in between."""
        if not self._was_rung:
            return
        self._was_rung = False
        with suppress(BlockingIOError):  # it was hushed between the two steps of who rang
            os.eventfd_read(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)
