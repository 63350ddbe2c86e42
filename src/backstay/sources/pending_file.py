"""A file under construction, invisible under its own name until it is whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, TypeAlias

from backstay.repository.nodes import Node
from backstay.sources.attributes import Attributes, Beside
from backstay.sources.extents import Extents
from backstay.sources.kernel import filesystem_type, reserve
from backstay.sources.refusals import ReportFailure
from backstay.sources.restore_errors import corrupted, failure

Bytes: TypeAlias = bytes | bytearray | memoryview
# Called with (the new file's descriptor, its directory's, its name), when all is written and it gets its name next.
BeforeNaming: TypeAlias = Callable[[int, int, bytes], None]

_TMPFS: Final = 0x01021994
_RESERVE_FROM: Final = 1 << 20  # smaller files find out soon enough that the disk is full


class PendingFile:
    """Owns an open temporary file in the directory of the final name; `write_at` is safe from several threads."""

    __slots__ = (
        "_attributes",
        "_before_naming",
        "_beside",
        "_dir_fd",
        "_fd",
        "_name",
        "_path",
        "_report",
        "_size",
        "_temporary",
    )

    def __init__(
        self,
        temporary: tuple[bytes, int],
        final: tuple[int, bytes, bytes],
        size: int,
        attributes: Attributes,
        report: ReportFailure,
        before_naming: BeforeNaming | None = None,
        *,
        beside: Beside = Beside.NOTHING,
    ) -> None:
        """`temporary` is (name, descriptor), `final` is (directory's descriptor, name, path for messages).

        `beside` is as for `Attributes.apply`.
        """
        self._before_naming = before_naming
        self._beside = beside
        self._temporary, self._fd = temporary
        self._dir_fd, self._name, self._path = final
        self._size = size
        self._attributes = attributes
        self._report = report

    @property
    def fd(self) -> int:
        """The descriptor, for another process that writes into it; closed by `commit` and `abandon`."""
        return self._fd

    def allocate(self, extents: Extents | None) -> None:
        """Give it its length; a file without holes takes its blocks now, so that a full disk is known at once."""
        try:
            if self._size:
                os.ftruncate(self._fd, self._size)
            if extents is None and self._size > _RESERVE_FROM:
                _make_room(self._fd, self._size)
        except (OSError, OverflowError) as error:
            self.abandon()
            raise failure(error, self._path, "create") from error

    def write_at(self, offset: int, data: Bytes) -> None:
        """Put bytes into their place."""
        if offset < 0 or offset + len(data) > self._size:
            raise corrupted(self._path, "some of its data lies outside of it")
        try:
            write_all(self._fd, data, offset)
        except OSError as error:
            raise failure(error, self._path, "write") from error

    def commit(self, node: Node) -> None:
        """Give it its attributes and then its name, replacing what is there."""
        try:
            self._attributes.apply(self._fd, node, self._report, beside=self._beside)
            if self._before_naming is not None:
                self._before_naming(self._fd, self._dir_fd, self._name)
            os.rename(self._temporary, self._name, src_dir_fd=self._dir_fd, dst_dir_fd=self._dir_fd)
        except OSError as error:
            self.abandon()
            raise failure(error, self._path, "write") from error
        except BaseException:
            self.abandon()
            raise
        self._close()

    def abandon(self) -> None:
        """Remove what was written; may be called more than once, and after `commit`."""
        if self._close():
            discard(self._temporary, self._dir_fd, self._report)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    def _close(self) -> bool:
        fd, self._fd = self._fd, -1
        if fd < 0:
            return False
        os.close(fd)
        return True


def write_all(fd: int, data: Bytes, offset: int) -> None:
    """Write every byte, however many calls it takes."""
    done = os.pwrite(fd, data, offset)
    while done < len(data):
        done += os.pwrite(fd, memoryview(data)[done:], offset + done)


def discard(temporary: bytes, dir_fd: int, report: ReportFailure) -> None:
    """Remove a temporary item, if it is still there."""
    try:
        os.unlink(temporary, dir_fd=dir_fd)
    except FileNotFoundError:
        return
    except OSError as error:
        report("remove temporary file", error)


def _make_room(fd: int, size: int) -> None:
    """Reserve blocks, or at least see that there are enough. Raises OSError."""
    if not _lies_in_memory(fd):
        reserve(fd, size)
        return
    # Reserving would clear every page now, only to have it written a moment later.
    space = os.fstatvfs(fd)
    if space.f_blocks and space.f_bavail * space.f_frsize < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _lies_in_memory(fd: int) -> bool:
    try:
        return filesystem_type(fd) == _TMPFS
    except OSError:
        return False
