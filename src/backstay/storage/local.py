"""Objects as files of a directory: local disks and whatever is mounted (NFS, SMB)."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeAlias

from backstay.errors import (
    BackstayError,
    InsufficientSpace,
    InvalidRequest,
    ObjectExists,
    ObjectNotFound,
    ObjectUnreadable,
    StorageMissing,
    StorageRefused,
    StorageUnavailable,
)
from backstay.storage.backend import Buffer, Capabilities, ObjectInfo, Room, StorageBackend
from backstay.storage.durable_files import DurableFiles
from backstay.storage.filesystem_seam import Filesystem
from backstay.storage.names import TEMPORARY, check_name, check_prefix, check_range, is_component
from backstay.storage.sweeping import outlived

_Infos: TypeAlias = Iterator[ObjectInfo]  # inside the class `list` is the method
_Temporary: Final = re.compile(rf"{re.escape(TEMPORARY)}(\d+)-[0-9a-f]+\Z")

_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe in the place of an object keeps nobody waiting

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

_BAD_BLOCKS: Final = frozenset({errno.EIO, errno.ENODATA, errno.EUCLEAN, errno.EBADMSG})

_MOUNT_AGAIN: Final = "mount it again, then repeat the command"
_HINTS: Final = {
    errno.EACCES: "check the owner and the permissions of {url}",
    errno.EPERM: "check the owner and the attributes (lsattr) of {url}",
    errno.EROFS: "the file system is mounted read-only: the system log says why; mount it for writing",
    errno.EIO: "the disk reports errors: look at the system log and at smartctl, and copy what is left",
    errno.ESTALE: _MOUNT_AGAIN,
    errno.ENOTCONN: _MOUNT_AGAIN,
    errno.EHOSTDOWN: _MOUNT_AGAIN,
    errno.ETIMEDOUT: "check that the file server answers, then repeat the command",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine",
    errno.EFBIG: "this file system takes no larger files; use another one",
    errno.ELOOP: "objects are plain files, never links: put the file itself there",
}


class LocalStorage(StorageBackend):
    """A directory that keeps one file per object.

    The first `store` makes the directory unless `create` is false. A directory that was there once and is not
    any more, or lies on another device than before, is a disk that was unmounted: StorageUnavailable, never
    "not found", and nothing is written below its empty mount point.
    """

    capabilities = Capabilities(proven=True)
    deletes_at_once = 8  # a directory is synced once for all of them; more would keep the disk from others

    def __init__(self, path: Path | str, *, create: bool = True, filesystem: Filesystem | None = None) -> None:
        self._root = Path(path).absolute()
        self._create = create
        self._filesystem = filesystem or Filesystem()
        self._disk = DurableFiles(self._filesystem)
        self._device: int | None = None  # st_dev of the directory when it was first seen
        self._durable: set[str] = set()  # directories whose own entries are known to be on disk
        self._making = threading.Lock()
        with suppress(StorageUnavailable):
            self._check_root()

    @property
    def url(self) -> str:
        return str(self._root)

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        check_name(name)
        final = self._path(name)
        directory = final.rpartition("/")[0]
        temporary = f"{directory}/{TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}"
        with self._told(f"cannot store {name}"):
            self._make_directory_of(name)  # a crash here leaves empty directories
            try:
                self._disk.write(temporary, data)  # a crash here leaves a temporary file, which no listing shows
                self._disk.publish(temporary, final, name, overwrite=overwrite)  # here: the whole object, or as before
            except ObjectExists:
                self._disk.discard(temporary)
                # Its writer may not have come to the next line yet, and who is told "exists" relies on it.
                self._disk.sync_directory(directory)
                raise
            except BaseException:
                self._disk.discard(temporary)
                raise
            # A crash or an error here leaves the whole object, acknowledged to nobody; it is not taken back,
            # because another writer may have been told that it exists.
            self._disk.sync_directory(directory)

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        check_range(start, length)
        with self._told(f"cannot read {name}", reading=True):
            descriptor = self.open_file(name)
            try:
                return self._read(descriptor, name, start, length)
            finally:
                self._filesystem.close(descriptor)

    def room(self) -> Room | None:
        """Of the file system, without what it keeps for root; None where it says nothing, as some shares do."""
        try:
            found = self._filesystem.statvfs(str(self._root))
        except OSError:
            return None
        free = found.f_bavail * found.f_frsize
        used = (found.f_blocks - found.f_bfree) * found.f_frsize
        return Room(total=used + free, free=free) if found.f_blocks else None

    def open_file(self, name: str) -> int:
        check_name(name)
        with self._told(f"cannot read {name}", reading=True):
            try:
                descriptor = self._filesystem.open(self._path(name), _READ)
            except (FileNotFoundError, NotADirectoryError):
                raise self._not_found(name) from None
            try:
                if not stat.S_ISREG(self._filesystem.fstat(descriptor).st_mode):
                    raise self._not_found(name)  # a directory or a pipe; links were refused by O_NOFOLLOW
            except BaseException:
                self._filesystem.close(descriptor)
                raise
            return descriptor

    def delete(self, name: str) -> None:
        self.delete_all([name])

    def delete_all(self, names: Sequence[str]) -> None:
        for name in names:
            check_name(name)
        if not names:
            return
        with self._told(f"cannot delete {names[0]}"):
            for path in map(self._path, names):
                with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                    self._filesystem.unlink(path)
            # A crash here may bring objects back. One that was gone already is synced as well: whoever removed it may
            # not have come to this line yet.
            for directory in dict.fromkeys(self._path(name).rpartition("/")[0] for name in names):
                with suppress(FileNotFoundError, NotADirectoryError):  # no directory, no object, if the disk is there
                    self._disk.sync_directory(directory)
            self._check_root()

    def list(self, prefix: str = "") -> _Infos:
        check_prefix(prefix)
        return self._list(prefix)

    def stat(self, name: str) -> ObjectInfo:
        check_name(name)
        with self._told(f"cannot examine {name}"):
            info = self._examine(name)
            if info is None:
                raise self._not_found(name)
            return info

    def sweep_temporaries(self, older_than_s: float) -> int:
        """Remove what interrupted stores left behind; how many files that were.

        Only files that are older than `older_than_s` and whose process is dead on this host: on a shared
        directory the age alone speaks for the processes of other hosts.
        """
        removed = 0
        with self._told(f"cannot clean up {self.url}"):
            left = [
                (name, self._modified_ns(name))
                for name, leaf in self._files("", "")
                if (match := _Temporary.match(leaf)) and _is_dead(int(match[1]))
            ]
            for name in outlived(self, left, older_than_s):
                with suppress(FileNotFoundError):
                    self._filesystem.unlink(self._path(name))  # not synced: what a crash brings back is swept again
                    removed += 1
            self._check_root()
        return removed

    # --- writing ---

    def _make_directory_of(self, name: str) -> None:
        """Make the directories above an object, durably.

        Top-down, and each entry is synced before the next level is made, so that a crash leaves a chain that
        hangs together. A directory that somebody else has just made is synced too: they may not have come to it.
        """
        with self._making:
            self._ensure_root()
            parent = self._path("").rstrip("/")
            for part in name.split("/")[:-1]:
                directory = f"{parent}/{part}"
                if directory not in self._durable:
                    self._disk.make_directory(directory, parent)
                    self._durable.add(directory)
                parent = directory

    def _ensure_root(self) -> None:
        if self._create and self._device is None:
            missing = [path for path in (self._root, *self._root.parents) if not path.exists()]
            for path in reversed(missing):
                self._disk.make_directory(str(path), str(path.parent))
        self._check_root()

    # --- reading ---

    def _read(self, descriptor: int, name: str, start: int, length: int | None) -> bytes:
        size = self._filesystem.fstat(descriptor).st_size
        wanted = size - start if length is None else length
        if wanted < 0 or start + wanted > size:  # before anything is allocated
            raise _short(name, start, length, size)
        pieces: list[bytes] = []
        position, end = start, start + wanted
        while position < end:
            piece = self._filesystem.pread(descriptor, end - position, position)
            if not piece:
                raise _short(name, start, length, position)
            pieces.append(piece)
            position += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _list(self, prefix: str) -> _Infos:
        base, _, stem = prefix.rpartition("/")
        with self._told(f"cannot list {self.url}/{prefix}"):
            for name, leaf in self._files(base, stem):
                info = self._examine(name) if is_component(leaf) else None
                if info is not None:  # else deleted since its directory was read
                    yield info
            self._check_root()  # the last word: what was not seen is absent, not out of reach

    def _files(self, base: str, stem: str) -> Iterator[tuple[str, str]]:
        """(name, last part) of everything below `base` that is no directory and begins with `stem` there."""
        pending = [(base, stem)]
        while pending:
            directory, stem = pending.pop()
            try:
                entries = self._filesystem.scandir(self._path(directory))
            except (FileNotFoundError, NotADirectoryError):
                continue  # there is none, or it has just gone: the caller checks the root
            for entry in entries:
                name = f"{directory}/{entry.name}" if directory else entry.name
                if not entry.name.startswith(stem):
                    continue
                if not entry.is_dir():
                    yield name, entry.name
                elif is_component(entry.name):  # `lost+found` and its like hold no objects
                    pending.append((name, ""))

    def _examine(self, name: str) -> ObjectInfo | None:
        """What the object is, or None if there is no such file; the caller checks the root."""
        try:
            status = self._filesystem.lstat(self._path(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if stat.S_ISLNK(status.st_mode):  # perhaps one to a directory of a disk that is away
            path = self._path(name)  # which a listing does not name otherwise
            raise OSError(errno.ELOOP, f"a link stands where an object is expected: {path}", path)
        if not stat.S_ISREG(status.st_mode):
            return None
        return ObjectInfo(name=name, size=status.st_size, modified_ns=status.st_mtime_ns)

    def _modified_ns(self, name: str) -> int:
        """0 for what is gone."""
        try:
            return self._filesystem.lstat(self._path(name)).st_mtime_ns
        except FileNotFoundError:
            return 0

    # --- failures ---

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _not_found(self, name: str) -> ObjectNotFound:
        """The proof that an object is absent: its store is there."""
        self._check_root()
        return ObjectNotFound(name)

    def _check_root(self) -> None:
        """Raise StorageUnavailable unless the directory is there, on the device where it was first seen.

        StorageMissing only on proof that it is not: who is told so may make a new one.
        """
        try:
            status = self._filesystem.stat(str(self._root))
        except (FileNotFoundError, NotADirectoryError) as error:
            hint = "check the address, and that the disk or share is mounted"
            raise StorageMissing(f"no directory {self.url}", cause=_cause(error), hint=hint) from error
        except OSError as error:  # whether it is there is not known
            hint = self._hint(error)
            raise StorageUnavailable(f"cannot look at {self.url}", cause=_cause(error), hint=hint) from error
        if not stat.S_ISDIR(status.st_mode):
            raise StorageMissing(f"no directory {self.url}", cause="it is a file", hint="check the address")
        if self._device is None:
            self._device = status.st_dev
        elif status.st_dev != self._device:
            raise StorageUnavailable(
                f"{self.url} is not the directory it was",
                cause="it lies on another device now: something was mounted or unmounted",
                hint=_MOUNT_AGAIN,
            )

    @contextmanager
    def _told(self, title: str, *, reading: bool = False) -> Iterator[None]:
        """Turn OSError into the error that says what to do; `reading` one object and nothing else."""
        try:
            yield
        except OSError as error:
            raise self._error(title, error, reading=reading) from error

    def _error(self, title: str, error: OSError, *, reading: bool) -> BackstayError:
        number, cause = error.errno or 0, _cause(error)
        if reading and number in _BAD_BLOCKS:
            self._check_root()  # else all of the disk is gone
            return ObjectUnreadable(title, cause=cause, hint=self._hint(error))
        if number in _FULL:
            return InsufficientSpace(title, cause=cause)
        if number in (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR):
            return InvalidRequest(title, cause=cause, hint="choose a name that fits this file system")
        if number == errno.ENOENT:
            self._durable.clear()  # somebody removed a directory; the next try makes it again
            self._check_root()
        kind = StorageRefused if number in (errno.EACCES, errno.EPERM) else StorageUnavailable
        return kind(title, cause=cause, hint=self._hint(error))

    def _hint(self, error: OSError) -> str:
        return _HINTS.get(error.errno or 0, "").replace("{url}", self.url)


def _cause(error: OSError) -> str:
    return error.strerror or str(error)


def _short(name: str, start: int, length: int | None, size: int) -> StorageUnavailable:
    asked = "the bytes" if length is None else f"{length} bytes"
    return StorageUnavailable(
        f"{name} is too short",
        cause=f"asked for {asked} from {start} on, but it has only {size}",
        hint="run `backstay verify`: the object was cut off, or the index does not belong to it",
    )


def _is_dead(pid: int) -> bool:
    """Whether no process of this host has the number; one of another user counts as alive."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False
