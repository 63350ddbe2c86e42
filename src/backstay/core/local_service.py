"""A Unix socket at which one process answers: those who come are known by what the kernel says of them."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from backstay.errors import BackstayError, InvalidRequest, ServiceRunning

LONGEST_PATH: Final = 107  # bytes; sockaddr_un has no room for more
WAITING: Final = 16  # connections that the kernel keeps until they are taken
_PEER: Final = struct.Struct("3i")  # process, user, group


class LocalService:
    """Listens at `path`, whoever listened there before and is gone.

    A lock file beside it tells whether somebody still does; the kernel lets go of it however a process ends. A crash
    leaves both files, and the next one takes them over.
    """

    def __init__(self, path: Path, *, open_to_all: bool) -> None:
        """`open_to_all` lets every user connect: look at `peer_user`.

        Raises InvalidRequest for a place that cannot be used or that others may change, ServiceRunning.
        """
        self.path = path
        try:
            _require_place(path)
            self._lock = _locked(path)
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            self._socket = _listening(path, 0o666 if open_to_all else 0o600)
        except BaseException as error:
            os.close(self._lock)
            if isinstance(error, OSError):
                raise _unusable(path, error) from error
            raise

    def accept(self, seconds: float) -> socket.socket | None:
        """Who comes next; None if nobody does for so long."""
        ready, _, _ = select.select([self._socket], [], [], seconds)
        return self._socket.accept()[0] if ready else None

    def close(self) -> None:
        """Take the socket away before somebody else may make one."""
        self.path.unlink(missing_ok=True)
        self._socket.close()
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def peer_user(connection: socket.socket) -> int:
    """The user who connected, by number."""
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    return int(_PEER.unpack(told)[1])


def _require_place(path: Path) -> None:
    """Raise InvalidRequest unless only root and we may put other files in the place of ours."""
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise InvalidRequest(
            f"{path} is too long for a socket",
            cause=f"the system takes {LONGEST_PATH} bytes",
            hint="name a shorter one with --socket",
        )
    with suppress(FileExistsError):
        path.parent.mkdir(parents=True)
        path.parent.chmod(0o755)  # whatever the umask: those who connect must get through
    found = path.parent.stat()
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidRequest(
            f"{path.parent} is no place for a socket",
            cause="other users may write there, and could put a program of their own in its place",
            hint="use a directory that only you may write to, such as /run/backstay",
        )


def _locked(path: Path) -> int:
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise ServiceRunning(f"another process answers at {path}", cause=f"it has locked {path}.lock") from error
    return lock


def _listening(path: Path, mode: int) -> socket.socket:
    """Nobody can connect before it listens, and by then it has its rights. Raises OSError, InvalidRequest."""
    if os.path.lexists(path) and not stat.S_ISSOCK(path.lstat().st_mode):
        raise InvalidRequest(f"{path} is no socket", cause="something else lies there", hint="name another --socket")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        path.unlink(missing_ok=True)
        listening.bind(os.fsencode(path))
        path.chmod(mode)
        listening.listen(WAITING)
    except BaseException:
        listening.close()
        raise
    return listening


def _unusable(path: Path, error: OSError) -> BackstayError:
    return InvalidRequest(
        f"cannot listen at {path}",
        cause=(error.strerror or str(error)).lower(),
        hint="name a place that you may write to with --socket",
    )
