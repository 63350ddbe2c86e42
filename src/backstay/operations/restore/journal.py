"""The journal of a restore in place: what is switched with what, and in which direction, whatever crashes.

A restore keeps what it needs in directories named `.backstay-restore-ID`, one for each file system that it changes. The
first holds the journal; the others name it in `leads-to`. In each, `items` holds what is not in its place: the new
items before the switch, the old ones after it.

| step | what it makes | a crash after it leaves |
|---|---|---|
| 1 | the directories, `state.json` with `staging` | the old state; they are removed the next time |
| 2 | `items`: everything new, whole, compared with the snapshot, on the disk | the same |
|   | `items` and `hold`: the directories that old items go to, so that from step 4 on no room is needed | the same |
| 3 | `rows`: what will change places, and the states to come, on the disk | the same |
| 4 | `state.json` with `switching`, on the disk | from here on the new state is decided; the next time finishes it |
| 5 | the switch itself, then attributes, on the disk | some items new, some old; `rows` and inode numbers say which |
| 6 | `state.json` with `done` | the new state; what is old is removed the next time, unless it is to be kept |
|   | old items that were written to since: out of `items`, beside the new ones | the same |
|   | `state.json` with `clearing`, unless what is old is to be kept | the same |
| 7 | removal: the others, then `items`, `rows`, `state.json`, the directory | the same |

When step 5 fails, or somebody wants the old state back, `state.json` says `undoing` before the first item goes back,
and `undone` when all are back on the disk; a crash in between ends in the old state. Then comes step 7.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from backstay.core.names import printable
from backstay.errors import RestoreConflict, RestoreFailed
from backstay.sources.directory_descriptors import DIRECTORY
from backstay.sources.facts import Facts
from backstay.sources.files_target import FilesTarget
from backstay.sources.switch_calls import SwitchCalls
from backstay.sources.target_directory import TargetDirectory

PREFIX: Final = b".backstay-restore-"
ITEMS: Final = b"items"
HOLD: Final = b"hold"
_STATE: Final = b"state.json"
_NEW_STATE: Final = b"state.new"
_ROWS: Final = b"rows"
_LEADS_TO: Final = b"leads-to"
_NEW_LEADS_TO: Final = b"leads-to.new"
_LARGEST_STATE: Final = 1 << 20
_BUFFER: Final = 1 << 20

State: TypeAlias = Literal["staging", "switching", "undoing", "done", "clearing", "undone"]
_LATER: Final[tuple[State, ...]] = ("switching", "undoing", "done", "clearing", "undone")


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`areas` are the absolute paths of all directories, the journal's own first; `digest` is the SHA-256 of `rows`.

    With `is_database` the files are SQLite databases, which have logs beside them.
    """

    format: Literal[1] = 1
    state: State = "staging"
    snapshot: str
    areas: tuple[bytes, ...]
    keep_old: bool
    is_database: bool = False
    digest: str = ""


class Switch(msgspec.Struct, frozen=True, tag="switch", forbid_unknown_fields=True):
    """Two places whose items change places; None stands for nothing there, numbers are inodes'.

    `live` is an absolute path, `staged` is relative to the directory of its area; `look` is that of the new item.
    `old_look` and `old_changed` are those of the old one when it was compared: one that was written to since is kept.
    """

    live: bytes
    area: int
    staged: bytes
    new: int | None
    old: int | None
    look: str | None = None
    old_look: str | None = None
    old_changed: int = 0


class Dress(msgspec.Struct, frozen=True, tag="dress", forbid_unknown_fields=True):
    """Attributes that are set in the end: forwards the new ones, backwards the old ones, where there are any.

    With `keep_mode` it is a directory whose mode may have been changed for the switch, and is the old one afterwards.
    An item that is not replaced has its `inode`: another one that has its name by then keeps its own attributes.
    """

    live: bytes
    old: Facts | None
    new: Facts | None
    keep_mode: bool = False
    inode: int | None = None


Row: TypeAlias = Switch | Dress


class Journal:
    """An open journal, locked against other processes. Raises OSError where not said otherwise."""

    def __init__(self, fd: int, header: Header, calls: SwitchCalls) -> None:
        self._fd, self.header, self._calls = fd, header, calls

    @property
    def path(self) -> bytes:
        return self.header.areas[0]

    @classmethod
    def begin(
        cls, areas: tuple[bytes, ...], snapshot: str, *, keep_old: bool, calls: SwitchCalls, is_database: bool = False
    ) -> Journal:
        """Make the directories; the times of those that they lie in stay what they are."""
        header = Header(snapshot=snapshot, areas=areas, keep_old=keep_old, is_database=is_database)
        fd = _make(areas[0], calls)
        try:
            _lock(fd, areas[0])
            journal = cls(fd, header, calls)
            journal._write_state()
            for area in areas[1:]:
                other = _make(area, calls)
                try:
                    _write(other, _NEW_LEADS_TO, areas[0], calls)
                    calls.replace(other, _NEW_LEADS_TO, _LEADS_TO)
                    calls.fsync(other)
                finally:
                    os.close(other)
        except BaseException:
            os.close(fd)
            raise
        return journal

    @classmethod
    def open(cls, path: bytes, calls: SwitchCalls) -> Journal:
        """Of one of a restore's directories. Raises RestoreConflict for others, and while somebody is at work there."""
        fd = _open_own(path)
        try:
            leads_to = _read(fd, _LEADS_TO)
            if leads_to:  # an empty one comes from a stop of the machine before anything was staged
                fd, other = _open_journal(path, leads_to), fd
                os.close(other)
                path = leads_to
            _lock(fd, path)
            return cls(fd, _header(fd, path), calls)
        except BaseException:
            os.close(fd)
            raise

    def close(self) -> None:
        os.close(self._fd)

    def set_state(self, state: State) -> None:
        """From now on, also after a crash."""
        if state == self.header.state:
            return
        self._calls.replace(self._fd, _prepared(state), _STATE)
        self._calls.fsync(self._fd)
        self.header = msgspec.structs.replace(self.header, state=state)

    def write_rows(self, rows: Iterable[Row]) -> None:
        """What will be switched; durable when this returns."""
        digest = hashlib.sha256()
        fd = self._calls.create(self._fd, _ROWS)
        with os.fdopen(fd, "wb", buffering=_BUFFER) as file:
            for row in rows:
                line = msgspec.json.encode(row) + b"\n"
                digest.update(line)
                file.write(line)
            file.flush()
            self._calls.fsync(fd)
        self.header = msgspec.structs.replace(self.header, digest=digest.hexdigest())
        for state in _LATER:  # now, so that a full disk cannot come between
            header = msgspec.structs.replace(self.header, state=state)
            _write(self._fd, _prepared(state), msgspec.json.encode(header), self._calls)
        self._calls.fsync(self._fd)

    def rows(self) -> Iterator[Row]:
        """In the order in which they were written. Raises RestoreConflict when they are not what was written."""
        decoder = msgspec.json.Decoder(Row)
        with self._file(_ROWS) as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != self.header.digest:
                raise _damaged(self.path, "its rows are not those that it was begun with")
            file.seek(0)
            for line in file:
                yield decoder.decode(line)

    def _file(self, name: bytes) -> BufferedReader:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        return BufferedReader(FileIO(fd), _BUFFER)

    def remove(self) -> None:
        """Everything, the journal last; also what of it is gone already. Raises BackstayError."""
        for area in reversed(self.header.areas[1:]):
            if os.path.lexists(area):
                fd = _open_own(area)
                try:
                    _empty(fd, area, (ITEMS, HOLD, _NEW_LEADS_TO, _LEADS_TO), self._calls)
                finally:
                    os.close(fd)
                _remove_directory(area, self._calls)
        prepared = tuple(map(_prepared, _LATER))
        first = (ITEMS, HOLD, _ROWS, *prepared, _NEW_STATE, _STATE)
        _empty(self._fd, self.path, (*first, _NEW_LEADS_TO, _LEADS_TO), self._calls)
        _remove_directory(self.path, self._calls)

    def _write_state(self) -> None:
        _write(self._fd, _NEW_STATE, msgspec.json.encode(self.header), self._calls)
        self._calls.replace(self._fd, _NEW_STATE, _STATE)
        self._calls.fsync(self._fd)


def leftovers(fd: int, path: bytes) -> Iterator[bytes]:
    """Directories of restores that this user began, in an open directory that lies at `path`."""
    for name in map(os.fsencode, os.listdir(fd)):
        if name.startswith(PREFIX):
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if _is_own(info):
                yield path.rstrip(b"/") + b"/" + name


def _prepared(state: State) -> bytes:
    return b"state." + state.encode()


def _make(path: bytes, calls: SwitchCalls) -> int:
    above, name = _open_above(path)
    try:
        before = os.fstat(above)
        calls.mkdir(above, name)
        _keep_time(above, before)
        calls.fsync(above)
        return os.open(name, DIRECTORY, dir_fd=above)
    finally:
        os.close(above)


def _remove_directory(path: bytes, calls: SwitchCalls) -> None:
    above, name = _open_above(path)
    try:
        before = os.fstat(above)
        calls.rmdir(above, name)
        _keep_time(above, before)
    finally:
        os.close(above)


def _keep_time(fd: int, before: os.stat_result) -> None:
    with suppress(PermissionError):  # of a directory that is another user's, such as /tmp
        os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))


def _open_above(path: bytes) -> tuple[int, bytes]:
    above, _, name = path.rpartition(b"/")
    return os.open(above or b"/", DIRECTORY & ~os.O_NOFOLLOW), name


def _empty(fd: int, path: bytes, names: tuple[bytes, ...], calls: SwitchCalls) -> None:
    """Remove what lies in an area, in this order; raises BackstayError."""
    target = FilesTarget(Path(os.fsdecode(path)), allow_root=True)
    for name in names:
        calls.step("remove")
        place = TargetDirectory(target, os.dup(fd), b"")
        try:
            place.remove(name)
        finally:
            place.close()


def _open_own(path: bytes) -> int:
    """Raises RestoreConflict for what is no directory of a restore of this user: what lies in one is removed."""
    if not path.rpartition(b"/")[2].startswith(PREFIX):
        raise _no_directory(path, "it has another name")
    try:
        fd = os.open(path, DIRECTORY)
    except OSError as error:
        raise _no_directory(path, (error.strerror or "").lower()) from error
    if not _is_own(os.fstat(fd)):
        os.close(fd)
        raise RestoreConflict(
            f"{printable(path)} is not trusted",
            cause="it belongs to another user, or others may write to it",
            hint="run this as the user who restored",
        )
    return fd


def _open_journal(area: bytes, leads_to: bytes) -> int:
    """Of the restore that an area belongs to. Raises RestoreConflict also when it is not there."""
    if not os.path.lexists(leads_to):
        raise RestoreConflict(
            f"the restore that keeps {printable(area)} cannot be told how far it came",
            cause=f"its journal is in {printable(leads_to)}, which is not there",
            hint="attach the disk that it lies on; if it was removed, take what you need out of `items` in the first "
            "directory, and remove that too",
        )
    return _open_own(leads_to)


def _no_directory(path: bytes, cause: str) -> RestoreConflict:
    return RestoreConflict(
        f"{printable(path)} is not a directory that a restore keeps",
        cause=cause,
        hint=f"name the directory {printable(PREFIX)}… that the restore told of",
    )


def _is_own(info: os.stat_result) -> bool:
    return stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() and not info.st_mode & 0o022


def _lock(fd: int, path: bytes) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RestoreConflict(
            "another restore in place is at work there",
            cause=f"it keeps {printable(path)}",
            hint="wait until it has ended",
        ) from error


def _header(fd: int, path: bytes) -> Header:
    data = _read(fd, _STATE)
    if data is None:  # the crash came before the first state or behind the last, so that nothing else is there
        names = set(map(os.fsencode, os.listdir(fd)))
        if names - {_NEW_STATE, _NEW_LEADS_TO, _LEADS_TO} or _read(fd, _LEADS_TO):
            raise _damaged(path, "its state.json is missing")
        return Header(snapshot="", areas=(path,), keep_old=False)
    try:
        header = msgspec.json.decode(data, type=Header)
    except msgspec.DecodeError as error:
        raise _damaged(path, str(error)) from error
    if not header.areas or header.areas[0] != path:
        raise _damaged(path, f"it was made for {printable(header.areas[0]) if header.areas else 'no place'}")
    return header


def _damaged(path: bytes, cause: str) -> RestoreFailed:
    return RestoreFailed(
        f"the journal in {printable(path)} is not what a restore wrote",
        cause=cause,
        hint="look into `items` there for what is missing, then remove the directory",
    )


def _read(fd: int, name: bytes) -> bytes | None:
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    except FileNotFoundError:
        return None
    with os.fdopen(file, "rb") as lines:
        return lines.read(_LARGEST_STATE)


def _write(fd: int, name: bytes, data: bytes, calls: SwitchCalls) -> None:
    file = calls.create(fd, name)
    with os.fdopen(file, "wb", buffering=0) as lines:
        lines.write(data)
        calls.fsync(file)
