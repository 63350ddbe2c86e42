"""Files that are on disk before they have their names, and names that are on disk: what a crash cannot halve."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Final

from backstay.errors import ObjectExists, StorageUnavailable
from backstay.storage.backend import Buffer
from backstay.storage.filesystem_seam import Filesystem

_DIRECTORY_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW

# From this size on the page cache is in the way: its pages cost more than the writing, and nobody reads them soon.
_BYPASS_FROM: Final = 1 << 20
_BYPASS_UNIT: Final = 4096  # what addresses and lengths must be multiples of, on any common disk

_NO_HARD_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_NO_NOREPLACE: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_NO_DIRECTORY_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})


class DurableFiles:
    """The steps by which an object comes to be: written below a temporary name, published, its directory synced."""

    def __init__(self, filesystem: Filesystem) -> None:
        self._filesystem = filesystem

    def write(self, temporary: str, data: Buffer) -> None:
        """A file whose bytes are on disk. A failed fsync is final: the kernel may have dropped the pages."""
        filesystem = self._filesystem
        rest = flat(data)
        descriptor = filesystem.open(temporary, _CREATE, _FILE_MODE)
        try:
            if len(rest) >= _BYPASS_FROM:
                rest = self._write_past_cache(descriptor, rest)
            self._write_all(descriptor, rest)
            filesystem.fsync(descriptor)  # before the name exists: a name never leads to missing bytes
        finally:
            filesystem.close(descriptor)

    def _write_past_cache(self, descriptor: int, data: memoryview) -> memoryview:
        """Write what can go straight from memory to disk; what is left of `data`."""
        whole = len(data) - len(data) % _BYPASS_UNIT
        rest = data
        try:
            self._filesystem.bypass_cache(descriptor, True)
            try:
                while (part := whole - (len(data) - len(rest))) > 0:
                    rest = rest[self._write_some(descriptor, rest[:part]) :]
            finally:
                self._filesystem.bypass_cache(descriptor, False)
        except OSError as error:
            if error.errno != errno.EINVAL:  # that one: not here, not from this address, or not after a short write
                raise
        return rest

    def _write_all(self, descriptor: int, data: memoryview) -> None:
        while data:
            data = data[self._write_some(descriptor, data) :]

    def _write_some(self, descriptor: int, data: memoryview) -> int:
        taken = self._filesystem.write(descriptor, data)
        if not taken:
            raise OSError(errno.EIO, "the file system takes no more bytes and does not say why")
        return taken

    def publish(self, temporary: str, final: str, name: str, *, overwrite: bool) -> None:
        """Give the finished file its name, in one step. Raises ObjectExists, StorageUnavailable, OSError."""
        if overwrite:
            self._filesystem.rename(temporary, final)
            return
        try:
            self._link(temporary, final, name)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            self._rename_noreplace(temporary, final, name)

    def _link(self, temporary: str, final: str, name: str) -> None:
        try:
            self._filesystem.link(temporary, final)
        except FileExistsError:
            # NFS repeats a request whose answer was lost, and then finds its own link.
            if self._filesystem.lstat(temporary).st_nlink < 2:
                raise ObjectExists(name) from None
        # A crash here leaves the object under both names; the sweep removes the second one.
        self.discard(temporary)

    def _rename_noreplace(self, temporary: str, final: str, name: str) -> None:
        """For file systems without hard links (exFAT, many SMB servers)."""
        try:
            self._filesystem.rename_noreplace(temporary, final)
        except FileExistsError:
            raise ObjectExists(name) from None
        except OSError as error:
            if error.errno not in _NO_NOREPLACE:
                raise
            raise StorageUnavailable(
                f"cannot store {name}",
                cause="the file system has neither hard links nor a rename that refuses to replace",
                hint="keep the repository on another file system, or reach this one by another protocol",
            ) from error

    def discard(self, temporary: str) -> None:
        """Remove a temporary file; one that stays is found by the sweep."""
        with suppress(OSError):
            self._filesystem.unlink(temporary)

    def make_directory(self, directory: str, parent: str) -> None:
        """Make a directory unless it is there, and bring its entry to disk."""
        with suppress(FileExistsError):
            self._filesystem.mkdir(directory, _DIRECTORY_MODE)
        self.sync_directory(parent)

    def sync_directory(self, directory: str) -> None:
        """Bring the entries of a directory to disk."""
        descriptor = self._filesystem.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._filesystem.fsync(descriptor)
        except OSError as error:
            # SMB and some FUSE file systems have no such call: their server keeps entries by itself.
            if error.errno not in _NO_DIRECTORY_SYNC:
                raise
        finally:
            self._filesystem.close(descriptor)


def flat(data: Buffer) -> memoryview:
    view = memoryview(data)
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())
