"""Linux's inotify (inotify(7)): what happens in directories, as the kernel tells it."""

from __future__ import annotations

import errno
import os
import struct
from typing import Final, NamedTuple, Protocol

from backstay.sources.kernel import CLOSED, call

MODIFY: Final = 0x2
ATTRIB: Final = 0x4
CLOSE_WRITE: Final = 0x8
MOVED_FROM: Final = 0x40
MOVED_TO: Final = 0x80
CREATE: Final = 0x100
DELETE: Final = 0x200
UNMOUNT: Final = 0x2000
OVERFLOW: Final = 0x4000
IGNORED: Final = 0x8000
ISDIR: Final = 0x4000_0000
_ONLYDIR: Final = 0x100_0000

NAMES: Final = CREATE | DELETE | MOVED_FROM | MOVED_TO
# CLOSE_WRITE, because writes through a memory map, and those of io_uring before Linux 6.1, are not told until then.
_CHANGES: Final = NAMES | MODIFY | ATTRIB | CLOSE_WRITE

_HEADER: Final = struct.Struct("@iIII")  # watch, mask, cookie, length of the name
_BUFFER: Final = 256 << 10  # bytes read at once: some thousand events


class Event(NamedTuple):
    """Something happened to `name` in a watched directory, or to the directory itself when it is empty."""

    watch: int
    mask: int
    name: bytes


class Notices(Protocol):
    """What tells of changes in directories; raises OSError."""

    def fileno(self) -> int: ...

    def watch(self, directory: int) -> int: ...

    def forget(self, watch: int) -> None: ...

    def read(self) -> list[Event]: ...

    def close(self) -> None: ...


class Inotify:
    """One queue of events. Raises OSError, such as EMFILE when this user has too many of them."""

    def __init__(self) -> None:
        self._fd = call("inotify_init1", os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        """For poll."""
        return self._fd

    def watch(self, directory: int) -> int:
        """Watch an open directory: a number, the same for the same directory. OSError ENOSPC: there are too many."""
        # By descriptor, so that no name on the way is looked up again. Without IN_EXCL_UNLINK: a file that lost the
        # name by which it is being written to may have another one, as those have that were made with O_TMPFILE.
        return call("inotify_add_watch", self._fd, b"/proc/self/fd/%d" % directory, _CHANGES | _ONLYDIR)

    def forget(self, watch: int) -> None:
        """End a watch; the kernel may have done so before."""
        try:
            call("inotify_rm_watch", self._fd, watch)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise

    def read(self) -> list[Event]:
        """What has happened since the last reading and fits into a buffer; empty when nothing has."""
        try:
            data = os.read(self._fd, _BUFFER)
        except BlockingIOError:
            return []
        events: list[Event] = []
        at = 0
        while at < len(data):
            watch, mask, _, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size
            events.append(Event(watch, mask, data[at : at + length].rstrip(b"\0")))
            at += length
        return events

    def close(self) -> None:
        """Let go, with all watches. May be called more than once."""
        fd, self._fd = self._fd, CLOSED
        if fd != CLOSED:
            os.close(fd)
