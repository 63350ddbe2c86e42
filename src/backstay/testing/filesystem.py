"""File systems for the local store that fail, stop, run full, or lose power at a chosen call."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from backstay.storage.filesystem_seam import Filesystem
from backstay.testing.faults import CrashPoint

MUTATIONS: Final = frozenset({"create", "write", "fsync", "link", "rename", "rename_noreplace", "unlink", "mkdir"})
T = TypeVar("T")


class FaultyFilesystem(Filesystem):
    """Fails the `at`-th call of the named `operations` (default: all that change something) with `fault`.

    `fault` is an errno or CrashPoint. With `after` the call has its effect first; with `repeat` all later calls
    fail as well. After a crash every call raises CrashPoint; only closing works, as it does for a dead process.
    `write_limit` makes writes short, `capacity` makes the disk full after so many bytes. `calls` records all
    calls but `close` and `fstat`, `hits` counts the failures.
    """

    def __init__(
        self,
        *,
        at: int = 0,
        fault: int | type[CrashPoint] = errno.EIO,
        operations: frozenset[str] = MUTATIONS,
        after: bool = False,
        repeat: bool = False,
        write_limit: int | None = None,
        capacity: int | None = None,
        inner: Filesystem | None = None,
    ) -> None:
        self.calls: list[tuple[str, str]] = []
        self.hits = 0
        self.crashed = False
        self._inner = inner or Filesystem()
        self._at = at
        self._fault = fault
        self._operations = operations
        self._after = after
        self._repeat = repeat
        self._write_limit = write_limit
        self._capacity = capacity
        self._counted = 0
        self._paths: dict[int, str] = {}

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        operation = "create" if flags & os.O_CREAT else "open"
        descriptor = self._call(operation, path, lambda: self._inner.open(path, flags, mode))
        self._paths[descriptor] = path
        return descriptor

    def write(self, descriptor: int, data: memoryview) -> int:
        return self._call("write", self._paths[descriptor], lambda: self._write(descriptor, data))

    def bypass_cache(self, descriptor: int, bypass: bool) -> None:
        self._inner.bypass_cache(descriptor, bypass)

    def pread(self, descriptor: int, length: int, offset: int) -> bytes:
        path = self._paths[descriptor]
        return self._call("pread", path, lambda: self._inner.pread(descriptor, length, offset))

    def fsync(self, descriptor: int) -> None:
        self._call("fsync", self._paths[descriptor], lambda: self._inner.fsync(descriptor))

    def close(self, descriptor: int) -> None:
        self._paths.pop(descriptor, None)
        self._inner.close(descriptor)

    def link(self, source: str, target: str) -> None:
        self._call("link", target, lambda: self._inner.link(source, target))

    def rename(self, source: str, target: str) -> None:
        self._call("rename", target, lambda: self._inner.rename(source, target))

    def rename_noreplace(self, source: str, target: str) -> None:
        self._call("rename_noreplace", target, lambda: self._inner.rename_noreplace(source, target))

    def unlink(self, path: str) -> None:
        self._call("unlink", path, lambda: self._inner.unlink(path))

    def mkdir(self, path: str, mode: int) -> None:
        self._call("mkdir", path, lambda: self._inner.mkdir(path, mode))

    def stat(self, path: str) -> os.stat_result:
        return self._call("stat", path, lambda: self._inner.stat(path))

    def lstat(self, path: str) -> os.stat_result:
        return self._call("lstat", path, lambda: self._inner.lstat(path))

    def scandir(self, path: str) -> Sequence[os.DirEntry[str]]:
        return self._call("scandir", path, lambda: self._inner.scandir(path))

    def _write(self, descriptor: int, data: memoryview) -> int:
        limits = [limit for limit in (self._write_limit, self._capacity) if limit is not None]
        part = data[: min(limits, default=len(data))]
        if self._capacity is not None:
            if not part:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._capacity -= len(part)
        return self._inner.write(descriptor, part)

    def _call(self, operation: str, path: str, effect: Callable[[], T]) -> T:
        if self.crashed:
            raise CrashPoint
        self.calls.append((operation, path))
        if not self._is_due(operation):
            return effect()
        self.hits += 1
        if self._after:
            with suppress(OSError):
                effect()
        if isinstance(self._fault, int):
            raise OSError(self._fault, os.strerror(self._fault), path)
        self.crashed = True
        raise self._fault

    def _is_due(self, operation: str) -> bool:
        if not self._at or operation not in self._operations:
            return False
        self._counted += 1
        return self._counted == self._at or (self._repeat and self._counted > self._at)


class PowerCutFilesystem(Filesystem):
    """Remembers what was not synced yet, and takes it all back in `cut`.

    The worst legal power cut: files lose every byte that no fsync followed, and directories every entry that
    was made, replaced or removed since they were synced. `attic` is a directory of the same file system where
    removed files wait for their return.
    """

    def __init__(self, attic: Path) -> None:
        self._attic = attic
        self._kept = 0
        self._paths: dict[int, str] = {}
        self._unsynced: set[tuple[int, int]] = set()  # files, as (device, inode)
        self._undo: list[tuple[str, Callable[[], object]]] = []  # (directory, how to take one change back)

    def open(self, path: str, flags: int, mode: int = 0o600) -> int:
        descriptor = super().open(path, flags, mode)
        self._paths[descriptor] = path
        if flags & os.O_CREAT:
            self._unsynced.add(_identity(os.fstat(descriptor)))
            self._note(path, partial(_remove, path))
        return descriptor

    def fsync(self, descriptor: int) -> None:
        super().fsync(descriptor)
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            synced = self._paths[descriptor]
            self._undo = [(directory, undo) for directory, undo in self._undo if directory != synced]
        self._unsynced.discard(_identity(status))

    def link(self, source: str, target: str) -> None:
        super().link(source, target)
        self._note(target, partial(_remove, target))

    def rename(self, source: str, target: str) -> None:
        moved = self._keep(source)
        replaced = self._keep(target) if Path(target).exists() else None
        super().rename(source, target)
        self._note(target, partial(_put_back, replaced, target))
        self._note(source, partial(_put_back, moved, source))

    def rename_noreplace(self, source: str, target: str) -> None:
        moved = self._keep(source)
        super().rename_noreplace(source, target)
        self._note(target, partial(_remove, target))
        self._note(source, partial(_put_back, moved, source))

    def unlink(self, path: str) -> None:
        kept = self._keep(path)
        super().unlink(path)
        self._note(path, partial(_put_back, kept, path))

    def mkdir(self, path: str, mode: int) -> None:
        super().mkdir(path, mode)
        self._note(path, partial(shutil.rmtree, path))

    def cut(self, root: Path) -> None:
        """Leave of `root` what is on disk."""
        for path in root.rglob("*"):
            if path.is_file() and _identity(path.stat()) in self._unsynced:
                os.truncate(path, 0)
        for _, undo in reversed(self._undo):
            undo()
        self._undo.clear()

    def _note(self, path: str, undo: Callable[[], object]) -> None:
        self._undo.append((path.rpartition("/")[0], undo))

    def _keep(self, path: str) -> Path:
        self._kept += 1
        kept = self._attic / str(self._kept)
        kept.hardlink_to(path)
        return kept


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _remove(path: str) -> None:
    Path(path).unlink(missing_ok=True)


def _put_back(kept: Path | None, path: str) -> None:
    _remove(path)
    if kept is not None:
        Path(path).hardlink_to(kept)
