"""A thread that waits for notices of the kernel, so that its queue does not overflow while others are busy."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

from backstay.sources.inotify import Notices
from backstay.sources.mount_points import MOUNTS


class NoticeReader:
    """Calls `noticed` each time that something happened in a watched directory or was mounted. Raises OSError."""

    def __init__(self, notices: Notices, noticed: Callable[[], None]) -> None:
        self._noticed = noticed
        self._mounts = os.open(MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(notices.fileno(), select.POLLIN)
        self._poll.register(self._mounts, select.POLLPRI)  # readable always; this tells of changes
        self._poll.register(self._wake, select.POLLIN)
        self._thread = threading.Thread(target=self._run, name="notices", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while all(fd != self._wake and not state & select.POLLNVAL for fd, state in self._poll.poll()):
            self._noticed()

    def close(self) -> None:
        """End the thread. Not within anything that `noticed` waits for."""
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)
        os.close(self._mounts)
