"""The files of a `.backups` directory, of which nothing is believed: no symbolic link is followed, only plain files
are read, and no bytes are taken that do not have the SHA-256 of their name."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, Self

from backstay.core.quantities import format_size
from backstay.core.syncfs import sync_filesystem
from backstay.errors import (
    BackstayError,
    GraphError,
    InsufficientSpace,
    InvalidDocument,
    NotFound,
    RepositoryBusy,
)
from backstay.graph.values import checked

_BLOBS: Final = "blobs"
_METADATA: Final = "metadata"
_INDEX: Final = "snapshots.json"
_PART: Final = ".part"  # what is being written, in blobs and in metadata; only one program writes at a time
_PIECE: Final = 1 << 20
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not stop us
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class LayoutDirectory:
    """An open directory of this layout; a context manager."""

    def __init__(self, path: Path, root: int, blobs: int, metadata: int) -> None:
        self.path = path
        self._root, self._blobs, self._metadata = root, blobs, metadata

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """One that is there, to read; raises NotFound, InvalidDocument or GraphError."""
        with ExitStack() as opened:
            with _told("read", path):
                root = _opened(opened, os.open(path, _DIRECTORY))
                below = [_opened(opened, _subdirectory(path, root, name)) for name in (_BLOBS, _METADATA)]
            yield cls(path, root, *below)

    @classmethod
    @contextmanager
    def create(cls, path: Path) -> Iterator[Self]:
        """One to write to, made where there is none, for this program alone.

        Raises RepositoryBusy while another program writes there, InsufficientSpace, InvalidDocument or GraphError.
        """
        with ExitStack() as opened:
            with _told("write", path):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                root = _opened(opened, os.open(path, _DIRECTORY))
                try:
                    fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until it is closed
                except BlockingIOError:
                    raise RepositoryBusy(f"{path} is in use", cause="another program writes to it") from None
                for name in (_BLOBS, _METADATA):
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=root)
                below = [_opened(opened, _subdirectory(path, root, name)) for name in (_BLOBS, _METADATA)]
            yield cls(path, root, *below)

    def read_index(self, most: int) -> bytes | None:
        """What `snapshots.json` holds, None if there is none.

        Raises InvalidDocument if it has more than `most` bytes.
        """
        with self._plain_file(self._metadata, f"{_METADATA}/{_INDEX}") as file:
            if file is None:
                return None
            if (size := os.fstat(file).st_size) > most:
                cause = f"it has {format_size(size)}; at most {format_size(most)} are read"
                raise InvalidDocument(f"{self.path / _METADATA / _INDEX} is too large", cause=cause)
            return b"".join(self._pieces(file))

    def write_index(self, pieces: Iterable[bytes]) -> None:
        """Replace `snapshots.json`, durably and whole or not at all, after all blobs written so far are durable."""
        with _told("write", self.path):
            sync_filesystem(self._blobs)
            self._put(self._metadata, _INDEX, pieces)
            for directory in (self._metadata, self._root):
                os.fsync(directory)

    def size(self, key: str) -> int | None:
        """How many bytes the blob of this content id has; None if there is none."""
        with self._plain_file(self._blobs, _blob(key)) as file:
            return None if file is None else os.fstat(file).st_size

    @contextmanager
    def blob(self, key: str) -> Iterator[Iterator[bytes]]:
        """The bytes of this content id, which all were read and found right before the first of them is given.

        Raises NotFound if there is no such blob, OutputMismatch if it has other bytes.
        """
        with self._plain_file(self._blobs, _blob(key)) as file:
            if file is None:
                raise NotFound(f"{self._shown(key)} is not there")
            if os.fstat(file).st_size <= _PIECE:
                yield iter(list(checked(self._pieces(file), key, self._shown(key))))
                return
            for _ in checked(self._pieces(file), key, self._shown(key)):
                pass
            os.lseek(file, 0, os.SEEK_SET)
            yield checked(self._pieces(file), key, self._shown(key))  # it may have changed between

    def has(self, key: str) -> bool:
        """Whether there is a blob of this content id that has the right bytes."""
        with self._plain_file(self._blobs, _blob(key)) as file:
            if file is None:
                return False
            digest = hashlib.sha256()
            for piece in self._pieces(file):
                digest.update(piece)
            return key.endswith(digest.hexdigest())

    def write_blob(self, key: str, pieces: Iterable[bytes]) -> int:
        """Write a blob under its name and say how many bytes it has; raises OutputMismatch if it is another's."""
        name = _blob(key).removeprefix(f"{_BLOBS}/")
        with _told("write", self.path):
            return self._put(self._blobs, name, checked(pieces, key, self._shown(key)))

    def _put(self, directory: int, name: str, pieces: Iterable[bytes]) -> int:
        """Write a file whole or not at all; blobs are many and made durable together, before the index is."""
        # A crash leaves the part file, which the next writer takes away, and what had the name before.
        with suppress(FileNotFoundError):
            os.unlink(_PART, dir_fd=directory)
        try:
            with os.fdopen(os.open(_PART, _NEW, 0o600, dir_fd=directory), "wb") as file:
                file.writelines(pieces)
                file.flush()
                size = file.tell()
                if directory == self._metadata:
                    os.fsync(file.fileno())
            os.rename(_PART, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(_PART, dir_fd=directory)
            raise
        return size

    @contextmanager
    def _plain_file(self, directory: int, name: str) -> Iterator[int | None]:
        with ExitStack() as opened:
            with _told("read", self.path):
                file = self._open_plain(directory, name)
                if file is not None:
                    _opened(opened, file)
                    if not stat.S_ISREG(os.fstat(file).st_mode):
                        raise self._no_plain_file(name)
            yield file

    def _open_plain(self, directory: int, name: str) -> int | None:
        try:
            return os.open(name.rpartition("/")[2], _FILE, dir_fd=directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENXIO):  # a link; a socket
                raise
            raise self._no_plain_file(name) from None

    def _no_plain_file(self, name: str) -> InvalidDocument:
        return InvalidDocument(f"{self.path / name} is no plain file", cause="links and devices are not followed")

    def _pieces(self, file: int) -> Iterator[bytes]:
        while piece := self._read(file):
            yield piece

    def _read(self, file: int) -> bytes:
        with _told("read", self.path):
            return os.read(file, _PIECE)

    def _shown(self, key: str) -> str:
        return str(self.path / _blob(key))


def _blob(key: str) -> str:
    return f"{_BLOBS}/{key.removeprefix('sha256:')}.json"


def _subdirectory(path: Path, root: int, name: str) -> int:
    try:
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        raise InvalidDocument(f"{path / name} is no directory", cause="links are not followed") from None


def _opened(stack: ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


@contextmanager
def _told(verb: str, path: Path) -> Iterator[None]:
    """What the system refuses, as an error of ours."""
    try:
        yield
    except FileNotFoundError as error:
        cause = f"{error.filename or 'a part of it'} does not exist"
        raise NotFound(
            f"{path} is no graph layout", cause=cause, hint="name the directory that has blobs and metadata"
        ) from error
    except OSError as error:
        kind: type[BackstayError] = InsufficientSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else GraphError
        raise kind(f"cannot {verb} {path}", cause=error.strerror or str(error), hint="check the directory") from error
