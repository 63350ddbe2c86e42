"""Wakes a thread that waits for a socket when something happened on another thread."""

from __future__ import annotations

import os
from contextlib import suppress


class Bell:
    """One more thing for `select` to wait for. It goes on ringing until it is hushed."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        return self._descriptor

    def ring(self) -> None:
        os.eventfd_write(self._descriptor, 1)

    def hush(self) -> None:
        """Call this before looking at what happened, so that nothing is missed in between."""
        with suppress(BlockingIOError):  # nobody rang
            os.eventfd_read(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)
