"""What changes below some paths of this machine, as the kernel tells it, from one walk to the next.

The walk itself adds the watches: each directory is watched before it is listed. So a directory is as it was seen when
it has been watched since before its last listing and nothing was told of it since. What is not known for certain is
looked at: after an overflow, a mount or a failed walk that is everything.

The kernel does not tell of writes through a memory map before it is closed, of those through another name of a file
that lies elsewhere, nor of what other machines do on a shared file system. Directories that hold files with several
names, or on which others are mounted, are looked at each time, and on shared file systems everything is. The rest is
found by a look at everything from time to time, which is the caller's to ask for.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

from backstay.core.clock import Clock
from backstay.core.names import printable
from backstay.sources import inotify
from backstay.sources.change_view import ChangeView
from backstay.sources.filesystem import CACHE_TAG
from backstay.sources.filters import Filters
from backstay.sources.inotify import Event, Inotify, Notices
from backstay.sources.mount_points import is_shared, mounted_in, mounts_below
from backstay.sources.notice_reader import NoticeReader
from backstay.sources.source import Problem
from backstay.sources.watched_tree import WatchedDirectory, WatchedTree, directory_of, name_of, path_in

_MOST_READS: Final = 64  # at a time, which is more than any queue holds; somebody may write as fast as we read
_LIMIT: Final = Path("/proc/sys/fs/inotify/max_user_watches")
_GENEROUS: Final = 1 << 20  # watches, of at most about 1 KiB of the kernel's memory each


class Stirred(NamedTuple):
    """When the first and the last change since the last walk were told, on the monotonic clock."""

    first: float
    last: float


class ChangeJournal:
    """Follows the walks of a source (`Observer`) and the kernel; safe from any thread. Close it when done."""

    def __init__(
        self,
        places: Iterable[bytes],
        *,
        filters: Filters,
        clock: Clock,
        notices: Callable[[], Notices] = Inotify,
        shared: Callable[[int], bool] = is_shared,
    ) -> None:
        """`places` are the paths of the source, absolute."""
        self._places, self._filters, self._clock = tuple(places), filters, clock
        self._make, self._is_shared_at = notices, shared
        self._lock = threading.RLock()
        self._notices: Notices | None = None
        self._abandoned: Notices | None = None  # open as long as the reader waits for it
        self._reader: NoticeReader | None = None
        self._tree = WatchedTree()
        self._mounts: tuple[bytes, ...] = ()
        self._mounted: dict[bytes, list[bytes]] = {}
        self._devices: dict[int, bool] = {}
        self._since: str | None = None
        self._everything = True  # is to be looked at at the next walk
        self._dirty: set[bytes] = set()
        # Directories that are looked at each time: those with files that have names elsewhere, and those that lead.
        self._linked: set[bytes] = set()
        self._known_links: frozenset[bytes] | None = None  # before the walk; None when it looks at everything
        self._leading: set[bytes] = set()
        self._troubled: set[bytes] = set()
        self._stirred: Stirred | None = None
        self._untold: list[str] = []
        self._told: set[str] = set()

    # -- for whoever waits

    @property
    def sees_everything(self) -> bool:
        """Whether all changes are told of; else the caller looks from time to time."""
        return self._notices is not None and not any(self._devices.values())

    @property
    def tells_all(self) -> bool:
        """Whether, beyond that, no file seen has a name elsewhere through which it could be written to."""
        return self.sees_everything and not self._linked

    def stirred(self) -> Stirred | None:
        """When something changed that a snapshot would show; None when nothing has since the last walk began."""
        with self._lock:
            self._drain()
            return self._stirred

    def warnings(self) -> list[str]:
        """What somebody should know, each thing once."""
        with self._lock:
            untold, self._untold = self._untold, []
            return untold

    # -- a walk, from its beginning to its end

    def begin(self, *, check: bool = False) -> ChangeView:
        """What the walk that begins now must look at: everything with `check`, which finds what was not told."""
        with self._lock:
            self._drain()
            self._look_at_mounts()
            if not self._everything and not (check and self._notices is None):
                everything = check or not self.sees_everything
                return self._view(since=self._since, everything=everything, compares=check and self.sees_everything)
        self._begin_anew()
        with self._lock:
            return self._view(since=None, everything=True, compares=False)

    def _view(self, *, since: str | None, everything: bool, compares: bool) -> ChangeView:
        """What is known now, at one moment: all that is told from now on is for the next one."""
        always = self._linked | self._leading | self._troubled
        view = ChangeView(
            self._tree, since=since, everything=everything, compares=compares, dirty=self._dirty, always=always
        )
        self._dirty, self._stirred, self._everything = set(), None, False
        self._known_links = None if everything else frozenset(self._linked)
        return view

    def done(self, view: ChangeView, snapshot: str | None, problems: Iterable[Problem]) -> None:
        """The walk ended with this snapshot, or showed that nothing has changed since it."""
        if self._abandoned is not None:
            self._stop()
        with self._lock:
            self._since = snapshot
            # What could not be read is tried, and told, each time.
            paths = [problem.path for problem in problems]
            self._troubled = {*paths, *map(directory_of, paths)}
            self._drain()
            for path in () if self._everything else view.contradictions(self._dirty):
                self._tell(
                    f"the kernel told nothing of a change of {printable(path)}, which a look at everything found: "
                    "programs that write through memory maps do that, and writes from elsewhere"
                )

    def failed(self) -> None:
        """The walk did not come to its end: the next one looks at everything."""
        with self._lock:
            self._everything = True

    def close(self) -> None:
        """End all watches."""
        self._stop()

    # -- the walk, as Observer

    def opened(self, fd: int, path: bytes, *, device: int, named: frozenset[bytes], leads: bool) -> None:
        """Watch a directory before it is listed."""
        with self._lock:
            self._linked.discard(path)
            if leads:  # others' changes touch its times, which stand in the one above, and are no reason to wake
                self._leading |= {path, directory_of(path)}
            if any(self._is_mounted_file(place, named) for place in self._mounted.get(path, ())):
                self._linked.add(path)
            if self._notices is None:
                return
            try:
                if device not in self._devices:
                    self._devices[device] = self._is_shared(fd, path)
                watch = self._notices.watch(fd)
            except OSError as error:
                if not (leads and error.errno == errno.EACCES):  # who may pass there, but not look, looks each time
                    self._give_up(path, error)
                return
            self._place(WatchedDirectory(path, watch, named, leads))

    def has_links(self, path: bytes) -> None:
        """What is written through one name of a file is not told of the others.

        Names that came in a new directory were told of by nothing: where the others are, only a look at everything
        shows.
        """
        with self._lock:
            self._linked.add(path)
            if self._known_links is not None and path not in self._known_links:
                self._lose_track()

    def is_cache(self, path: bytes) -> None:
        """What comes and goes in a cache is no reason for a snapshot."""
        with self._lock:
            directory = self._tree.at(path)
            if directory is not None:
                directory.is_cache = True

    def _is_mounted_file(self, place: bytes, named: frozenset[bytes]) -> bool:
        """Whether a file is mounted there that is backed up: what is written to it is told where its own name is."""
        return (name_of(place) in named or not self._filters.excludes(place, False)) and _is_file(place)

    def _place(self, new: WatchedDirectory) -> None:
        before = self._tree.of(new.watch)
        if before is not None and before.path == new.path:
            before.named, before.leads, before.is_cache = new.named, new.leads, False
            return
        if before is not None:  # it came here from elsewhere, which is told later, or has two places at once
            self._dirty.add(directory_of(before.path))
            self._take_out(before, but=new.watch)
        there = self._tree.at(new.path)
        if there is not None:
            self._take_out(there)
        self._tree.put(new)

    def _take_out(self, directory: WatchedDirectory, *, but: int | None = None) -> None:
        for gone in self._tree.take_out(directory):
            self._linked.discard(gone.path)
            if gone.watch != but and self._notices is not None:
                self._notices.forget(gone.watch)

    def _is_shared(self, fd: int, path: bytes) -> bool:
        shared = self._is_shared_at(fd)
        if shared:
            self._tell(
                f"{printable(path)} is on a file system that others may change unseen: everything is looked at "
                "from time to time instead"
            )
        return shared

    def _give_up(self, path: bytes, error: OSError) -> None:
        """Without some watches the others prove nothing, and are better left to other programs."""
        self._abandoned, self._notices = self._notices, None
        self._tree = WatchedTree()
        if error.errno == errno.ENOSPC:
            limit = _limit()
            self._tell(
                f"there are more directories than may be watched ({limit}): everything is looked at from time to time "
                f"instead; `sysctl fs.inotify.max_user_watches={max(_GENEROUS, 4 * limit)}` lets them be watched"
            )
            return
        why = (error.strerror or str(error)).lower()
        self._tell(f"{printable(path)} cannot be watched ({why}): everything is looked at from time to time instead")

    # -- the kernel

    def _begin_anew(self) -> None:
        """Forget all watches: the walk that follows adds them, and looks at everything."""
        self._stop()
        with self._lock:
            self._tree, self._devices = WatchedTree(), {}
            self._dirty, self._linked, self._leading, self._troubled = set(), set(), set(), set()
            try:
                self._mounts = mounts_below(self._places)
                self._mounted = mounted_in(self._mounts)
                self._notices = self._make()
                self._reader = NoticeReader(self._notices, self._noticed)
            except OSError as error:
                self._abandoned, self._notices = self._notices, None
                why = (error.strerror or str(error)).lower()
                self._tell(f"nothing can be watched ({why}): everything is looked at from time to time instead")

    def _stop(self) -> None:
        """Not within the lock, for which the reader may wait."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
        with self._lock:
            ended = self._notices, self._abandoned
            self._notices = self._abandoned = None
        for notices in ended:
            if notices is not None:
                notices.close()

    def _noticed(self) -> None:
        """Something happened, as the reader's thread sees."""
        with self._lock:
            self._drain()
            self._look_at_mounts()

    def _drain(self) -> None:
        try:
            for _ in range(_MOST_READS):
                events = self._notices.read() if self._notices is not None else []
                for event in events:
                    self._take(event)
                if not events:
                    return
        except OSError:  # what it would have told is unknown
            self._lose_track()

    def _look_at_mounts(self) -> None:
        if self._notices is None:
            return
        try:
            mounts = mounts_below(self._places)
        except OSError:
            mounts = ()
        if mounts != self._mounts:
            self._mounts = mounts
            self._lose_track()

    def _take(self, event: Event) -> None:
        mask = event.mask
        if mask & (inotify.OVERFLOW | inotify.UNMOUNT):
            self._lose_track()
            return
        directory = self._tree.of(event.watch)
        if directory is None or (directory.leads and event.name not in directory.named):
            return
        if mask & inotify.IGNORED:  # it is gone, which the directory above is told as well
            self._dirty.add(directory_of(directory.path))
            self._take_out(directory, but=event.watch)
            return
        self._dirty.add(directory.path)
        self._take_name(directory, event)

    def _take_name(self, directory: WatchedDirectory, event: Event) -> None:
        name, is_directory = event.name, bool(event.mask & inotify.ISDIR)
        if event.mask & inotify.NAMES and is_directory and (there := directory.below.get(name)) is not None:
            self._take_out(there)
        path = path_in(directory.path, name) if name else directory.path
        if not self._counts(directory, name, path, is_directory=is_directory or not name):
            return
        self._stir()
        if event.mask & (inotify.CREATE | inotify.MOVED_TO) and not is_directory and _has_links(path):
            self._everything = True  # its other names are not told that they are no longer alone

    def _counts(self, directory: WatchedDirectory, name: bytes, path: bytes, *, is_directory: bool) -> bool:
        if name == CACHE_TAG:
            directory.is_cache = False  # until it is listed again
        if not name or name in directory.named:
            return True
        if directory.is_cache:
            return False
        return self._filters.empty or not self._filters.excludes(path, is_directory)

    def _lose_track(self) -> None:
        self._everything = True
        self._stir()

    def _stir(self) -> None:
        now = self._clock.monotonic()
        self._stirred = Stirred(self._stirred.first if self._stirred is not None else now, now)

    def _tell(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            self._untold.append(message)


def _has_links(path: bytes) -> bool:
    try:
        info = os.lstat(path)
    except OSError:
        return False
    return info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode)


def _is_file(path: bytes) -> bool:
    try:
        return not stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def _limit() -> int:
    try:
        return int(_LIMIT.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
