"""What an item looks like, so that it can be told later whether it was written to since."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, field

from backstay.sources.directory_descriptors import is_readable, open_directory


def look_of(dir_fd: int, name: bytes, info: os.stat_result) -> str:
    """Of a file size and time, of a directory all names in it, with what has them. Raises OSError.

    Owners and modes do not count, nor does the time of a directory; `info` is what `stat` says.
    """
    if not stat.S_ISDIR(info.st_mode):
        return f"{info.st_size} {info.st_mtime_ns}"  # renames change its ctime
    digest = hashlib.sha256()
    stack = [_Directory(*open_directory(dir_fd, name, writing=False))]
    try:
        digest.update(stack[-1].look())
        while stack:
            if stack[-1].inner:
                stack.append(
                    _Directory(*open_directory(stack[-1].fd, os.fsencode(stack[-1].inner.pop()), writing=False))
                )
                digest.update(stack[-1].look())
            else:
                stack.pop().close()
    finally:
        for directory in stack:
            directory.close()
    return digest.hexdigest()


def change_time(info: os.stat_result) -> int:
    """Of an item that nothing but a write to it changes as long as it stays where it is; else 0.

    Those of directories and of files with other names may change with what is restored beside; one that its owner may
    not read was opened to him while it was compared.
    """
    if stat.S_ISDIR(info.st_mode) or info.st_nlink > 1 or not info.st_mode & stat.S_IRUSR:
        return 0
    return info.st_ctime_ns


@dataclass(slots=True)
class _Directory:
    """One that is open; `mode` is what it gets back, if its owner had to be let in."""

    fd: int
    mode: int | None
    inner: list[str] = field(default_factory=list)

    def look(self) -> bytes:
        """Of what is in it, but for what its directories hold."""
        found: list[str] = []
        if not is_readable(self.fd):
            return b"closed"
        with os.scandir(self.fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    self.inner.append(entry.name)
                    found.append(entry.name)
                else:
                    info = entry.stat(follow_symlinks=False)
                    changed_ns = info.st_ctime_ns if info.st_nlink == 1 else 0  # renames of other names change it
                    found.append(f"{entry.name}/{info.st_ino} {info.st_size} {info.st_mtime_ns} {changed_ns}")
        self.inner.sort()
        found.sort()
        return os.fsencode("\0".join(found)) + b"\0/\0"

    def close(self) -> None:
        try:
            if self.mode is not None:
                os.fchmod(self.fd, self.mode)
        finally:
            os.close(self.fd)
