"""Backs up files and directories of this machine, walking by directory descriptors."""

from __future__ import annotations

import os
import stat
import sys
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, pairwise, starmap
from operator import eq
from pathlib import Path
from typing import Final

from backstay.core.clock import Clock, SystemClock
from backstay.core.names import printable
from backstay.errors import InvalidRequest, NotFound
from backstay.repository.nodes import storable_time
from backstay.sources.changes import Observer
from backstay.sources.entry_reader import NOT_WHAT_IT_WAS, OPEN_FILE, EntryChanged, EntryReader, open_quietly, row_of
from backstay.sources.exhaustion import refuse_exhaustion
from backstay.sources.filters import Filters
from backstay.sources.kernel import CLOSED, raise_descriptor_limit
from backstay.sources.metadata import Owners, Volume
from backstay.sources.named_paths import NOTHING_NAMED, NamedPaths
from backstay.sources.refusals import words_of
from backstay.sources.source import PAGE_ENTRIES, Capture, Lent, Problem, Stat

CACHE_TAG: Final = b"CACHEDIR.TAG"
CACHE_SIGNATURE: Final = b"Signature: 8a477f597d28d172789f06886806bc55"

_ENCODING: Final = sys.getfilesystemencoding()
_ON_ERROR: Final = sys.getfilesystemencodeerrors()
_OPEN_DIRECTORY: Final = OPEN_FILE | os.O_DIRECTORY
_PASS_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class FilesystemSource:
    """What lies under some paths of this machine.

    Paths are made absolute and symlinks on the way to them are resolved, so that the snapshot holds real places
    and restores into them; a path that is itself a symlink is stored as one, unless a slash at its end says that its
    directory is meant. Paths that were named are backed up whatever the filters say; filters choose among what lies
    below.
    """

    kind = "filesystem"

    def __init__(
        self, paths: Sequence[bytes], *, filters: Filters, clock: Clock, observer: Observer | None = None
    ) -> None:
        self.problems: list[Problem] = []
        asked = [_absolute(path) for path in paths]
        self.paths: Sequence[bytes] = tuple(dict.fromkeys(map(_normal, asked)))
        self.filters = filters
        self.clock = clock
        self.observer = observer
        self.owners = Owners()
        self._volumes: dict[int, Volume] = {}
        # Where they really lie, as the snapshot shows them.
        found = [self._real_place(path) for path in asked]
        self.places: Sequence[bytes] = tuple(dict.fromkeys(place for place in found if place is not None))
        self.lacks_paths = None in found
        self._named = NamedPaths.of(self.places)
        if self._named is NOTHING_NAMED:
            raise _nothing_to_back_up(self.problems)
        raise_descriptor_limit()

    def root(self) -> OpenDirectory:
        """The directory `/` of the snapshot; holds only what leads to the source's paths."""
        return OpenDirectory(self, open_quietly(b"/", _OPEN_DIRECTORY), b"/", self._named)

    def volume(self, fd: int, device: int, path: bytes) -> Volume:
        """The file system that an open directory lies on."""
        if device not in self._volumes:
            self._volumes[device] = Volume.of(fd, path)
        return self._volumes[device]

    def report(self, path: bytes, error: OSError) -> None:
        """Add to `problems`; safe from any thread. Raises BackupFailed when this machine has run out of something."""
        refuse_exhaustion(path, error)
        self.problems.append(Problem(path, words_of(error)))

    def lacks(self, path: bytes, message: str) -> None:
        """Add to `problems` what is not stored of an item that is; safe from any thread."""
        self.problems.append(Problem(path, message, is_stored=True))

    def _real_place(self, path: bytes) -> bytes | None:
        try:
            place = _real(path)
            os.lstat(place)
        except OSError as error:
            self.report(path, error)
            return None
        return place


def _absolute(path: bytes) -> bytes:
    if not path or b"\0" in path:
        raise InvalidRequest(f"cannot back up {printable(path)!r}", cause="no file has such a name")
    return path if path.startswith(b"/") else os.fsencode(Path.cwd()) + b"/" + path


def _normal(path: bytes) -> bytes:
    """The path without what says nothing, `..` resolved as the system does: above where a symlink leads."""
    if b".." in path.split(b"/"):
        path = _real(path)
    return b"/" + os.path.normpath(path).lstrip(b"/")  # normpath leaves two leading slashes as they are


def _real(path: bytes) -> bytes:
    """Where an absolute path lies once symlinks on the way are followed, and one at its end if it asks for that."""
    parent, name = os.path.split(path)
    if name in (b"", b".", b".."):
        return os.path.realpath(path)
    return os.path.realpath(parent).rstrip(b"/") + b"/" + name


def _nothing_to_back_up(problems: Sequence[Problem]) -> Exception:
    if not problems:
        return InvalidRequest("nothing to back up", cause="no path was given")
    cause = "; ".join(f"{printable(problem.path)}: {problem.message}" for problem in problems[:5])
    return NotFound("none of the paths to back up exists", cause=cause, hint="check the paths")


class OpenDirectory:
    """One directory being walked; `named` are the source's paths that lie below it."""

    __slots__ = ("_fd", "_home", "_info", "_only", "_prefix", "_reader", "_source", "named", "path")

    def __init__(
        self,
        source: FilesystemSource,
        fd: int,
        path: bytes,
        named: NamedPaths,
        home: int | None = None,
        *,
        is_listed: bool = True,
    ) -> None:
        """`home` is the device that a parent with all its children lies on; None where that and this one only lead.

        One that is not listed holds what was named below it.
        """
        self._source = source
        self._fd = fd
        self.path = path
        self.named = named
        self._prefix = path if path == b"/" else path + b"/"
        self._info = os.fstat(fd)
        device = self._info.st_dev
        self._reader = EntryReader(
            fd,
            path,
            volume=source.volume(fd, device, path),
            owners=source.owners,
            clock=source.clock,
            lacks=source.lacks,
        )
        inside = home is not None and (home == device or not source.filters.one_file_system)
        self._home = device if named.whole else home if inside else None
        self._only = None if self._home is not None and is_listed else sorted(named.below)
        if source.observer is not None:
            leads = self._only is not None
            source.observer.opened(fd, path, device=device, named=frozenset(named.below), leads=leads)

    def pages(self) -> Iterator[Sequence[Stat]]:
        """The entries that pass the filters, sorted by raw name; raises OSError when the listing is incomplete."""
        if self._only is not None:
            yield from self._examined_pages(self._only)
            return
        with os.scandir(self._fd) as entries:
            first = list(islice(entries, PAGE_ENTRIES))
            if len(first) < PAGE_ENTRIES:
                yield self._without_cache(self._examined(self._passing(first)))
                return
            # Names alone fit into memory for any number of entries; their stats do not.
            names = [_name(entry) for entry in self._passing(chain(first, entries))]
        del first
        names.sort()
        if any(starmap(eq, pairwise(names))):
            names = list(dict.fromkeys(names))
        yield from self._examined_pages(self._without_cached_names(names))

    def capture(self, entry: Stat, *, small: int) -> Capture:
        """Everything about one entry; files of at most `small` bytes come with their data. Raises OSError."""
        return self._reader.capture(entry, small=small)

    def lend(self) -> Lent | None:
        """What another process captures entries by; None when time is not that of this machine."""
        if not isinstance(self._source.clock, SystemClock):
            return None
        return Lent(self._fd, self.path, self._reader.volume)

    def enter(self, entry: Stat) -> OpenDirectory:
        """Open a child directory. Raises OSError."""
        name = entry[0]
        path = self._prefix + name
        named = self.named.below.get(name, NOTHING_NAMED) if self.named.below else NOTHING_NAMED
        home = None if self._only_leads(path, named) else self._home
        try:
            fd, is_listed = self._opened(name, named, report=home is not None or named.whole)
        except OSError as error:
            if error.errno in NOT_WHAT_IT_WAS:
                raise EntryChanged(path, entry[1]) from error
            raise
        return OpenDirectory(self._source, fd, path, named, home, is_listed=is_listed)

    def unlike(self, entry: Stat) -> Capture | None:
        """This directory itself, if it is another one than the entry by which it is known; else None."""
        if (self._info.st_ino, self._info.st_mode) == (entry[5], entry[1]):
            return None
        try:
            return self._reader.capture_itself(entry[0], self._info, self.path)
        except OSError as error:
            refuse_exhaustion(self.path, error)
            raise

    def _only_leads(self, path: bytes, named: NamedPaths) -> bool:
        """Whether a child is left out itself, and is there for the sake of what was named below it."""
        if self._home is None or not named.below or named.whole:
            return False
        return self._source.filters.excludes(path, True) or self._is_cache()

    def _opened(self, name: bytes, named: NamedPaths, *, report: bool) -> tuple[int, bool]:
        """The child, and whether it can be listed: who may only pass through it can back up what was named below."""
        try:
            return open_quietly(name, _OPEN_DIRECTORY, self._fd), True
        except PermissionError as error:
            if not named.below:
                raise
            if report:
                self._source.report(self._prefix + name, error)  # the rest of it is missing
        return os.open(name, _PASS_DIRECTORY, dir_fd=self._fd), False

    def close(self) -> None:
        """Let go of it; children that are open stay usable. May be called more than once."""
        fd, self._fd = self._fd, CLOSED
        self._reader.fd = CLOSED
        if fd != CLOSED:
            os.close(fd)

    def __del__(self) -> None:
        self.close()

    # Listing

    def _passing(self, entries: Iterable[os.DirEntry[str]]) -> Iterable[os.DirEntry[str]]:
        filters = self._source.filters
        if filters.empty:
            return entries
        prefix, below, excludes = self._prefix, self.named.below, filters.excludes
        return (
            entry
            for entry in entries
            if not excludes(prefix + (name := _name(entry)), _is_directory(entry)) or name in below
        )

    def _examined(self, entries: Iterable[os.DirEntry[str]]) -> list[Stat]:
        """Stat every entry: the innermost loop of an unchanged backup."""
        rows: list[Stat] = []
        add = rows.append
        linked = False
        for entry in entries:
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError as error:
                self._not_examined(_name(entry), error)
                continue
            mode, mtime, ctime = info.st_mode, info.st_mtime_ns, info.st_ctime_ns
            if (mtime | ctime) >> 63:
                mtime, ctime = storable_time(mtime), storable_time(ctime)
            if info.st_nlink > 1 and mode & 0o170000 != 0o040000:
                linked = True
            add(
                (
                    entry.name.encode(_ENCODING, _ON_ERROR),
                    mode,
                    0 if mode & 0o170000 == 0o040000 else info.st_size,
                    mtime,
                    ctime,
                    info.st_ino,
                )
            )
        rows.sort()
        if linked:
            self._tell_of_links()
        names = {row[0]: row for row in rows}  # some file systems list twice what is renamed meanwhile
        return rows if len(names) == len(rows) else list(names.values())

    def _examined_pages(self, names: Sequence[bytes]) -> Iterator[list[Stat]]:
        for start in range(0, len(names), PAGE_ENTRIES):
            rows: list[Stat] = []
            linked = False
            for name in names[start : start + PAGE_ENTRIES]:
                try:
                    info = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
                except OSError as error:
                    self._not_examined(name, error)
                    continue
                linked = linked or (info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode))
                rows.append(row_of(name, info))
            if linked:
                self._tell_of_links()
            yield rows

    def _tell_of_links(self) -> None:
        if self._source.observer is not None:
            self._source.observer.has_links(self.path)

    def _not_examined(self, name: bytes, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError) or name in self.named.below:
            self._source.report(self._prefix + name, error)

    def _without_cache(self, rows: list[Stat]) -> list[Stat]:
        place = bisect_left(rows, (CACHE_TAG,))
        if place == len(rows) or rows[place][0] != CACHE_TAG or not self._is_cache():
            return rows
        return [row for row in rows if row[0] == CACHE_TAG or row[0] in self.named.below]

    def _without_cached_names(self, names: list[bytes]) -> list[bytes]:
        place = bisect_left(names, CACHE_TAG)
        if place == len(names) or names[place] != CACHE_TAG or not self._is_cache():
            return names
        return [name for name in names if name == CACHE_TAG or name in self.named.below]

    def _is_cache(self) -> bool:
        """Whether a program marked this directory as one it can fill again (bford.info/cachedir)."""
        if not self._source.filters.exclude_caches or self.named.whole:
            return False
        try:
            fd = open_quietly(CACHE_TAG, OPEN_FILE, self._fd)
        except OSError:
            return False  # a tag that cannot be read marks nothing: rather back up too much
        try:
            is_cache = stat.S_ISREG(os.fstat(fd).st_mode) and os.read(fd, len(CACHE_SIGNATURE)) == CACHE_SIGNATURE
        finally:
            os.close(fd)
        if is_cache and self._source.observer is not None:
            self._source.observer.is_cache(self.path)
        return is_cache


def _name(entry: os.DirEntry[str]) -> bytes:
    return entry.name.encode(_ENCODING, _ON_ERROR)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False  # the stat that follows reports it
