"""Single steps on an SFTP server: whole files, links, and what attributes say."""

from __future__ import annotations

import secrets
import stat
from contextlib import suppress
from typing import Final

import asyncssh
from asyncssh import FXF_CREAT, FXF_EXCL, FXF_READ, FXF_WRITE, SFTPAttrs, SFTPClient

from backstay.errors import InsufficientSpace, ObjectExists, StorageUnavailable
from backstay.storage.backend import ObjectInfo
from backstay.storage.transfer import check_stored

ABSENT: Final = (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath)
EXISTS: Final = asyncssh.SFTPFileAlreadyExists
UNSUPPORTED: Final = asyncssh.SFTPOpUnsupported
PRIVATE_DIRECTORY: Final = SFTPAttrs(permissions=0o700)
PRIVATE_FILE: Final = SFTPAttrs(permissions=0o600)
CREATE: Final = FXF_WRITE | FXF_CREAT | FXF_EXCL

_SFTPError: Final = asyncssh.SFTPError


async def write(sftp: SFTPClient, path: str, data: bytes) -> None:
    """A file whose bytes are on the server's disk, if the server can say so."""
    async with sftp.open(path, CREATE, PRIVATE_FILE, encoding=None) as file:
        await file.write(data, 0)
        with suppress(UNSUPPORTED):
            await file.fsync()  # before the name exists: a name never leads to missing bytes
        check_stored(path.rpartition("/")[2], len(data), (await file.stat()).size)


async def touch(sftp: SFTPClient, path: str) -> None:
    """Create an empty file, and fail if there is one."""
    file = await sftp.open(path, CREATE, PRIVATE_FILE, encoding=None)
    await file.close()


async def replace(sftp: SFTPClient, temporary: str, final: str) -> None:
    try:
        await sftp.posix_rename(temporary, final)
    except UNSUPPORTED:
        try:
            await sftp.rename(temporary, final)  # which most servers refuse when there is something to replace
        except asyncssh.SFTPFailure as error:
            raise StorageUnavailable(
                f"cannot replace {final}",
                cause="the server has no posix-rename, and its rename does not replace files",
                hint="use an SFTP server with posix-rename@openssh.com, as OpenSSH has it",
            ) from error


async def rename_if_absent(sftp: SFTPClient, temporary: str, final: str, name: str) -> None:
    """Two steps: exactly one of several writers succeeds only if they hold a claim."""
    if await lstat(sftp, final) is not None:
        raise ObjectExists(name)
    try:
        await sftp.rename(temporary, final)  # version 3 forbids servers to replace by it; not all know
    except (EXISTS, asyncssh.SFTPFailure, *ABSENT):
        if await lstat(sftp, final) is None:
            raise
        if await lstat(sftp, temporary) is not None:
            raise ObjectExists(name) from None
        # It took effect, and the server was told of a second try: only we know the name that is gone.


async def discard(sftp: SFTPClient, path: str) -> None:
    """Remove a temporary file; one that stays is found by the sweep."""
    with suppress(asyncssh.Error, OSError):
        await sftp.remove(path)


async def sync_directory(sftp: SFTPClient, directory: str) -> None:
    """Bring a directory's entries to the server's disk. OpenSSH can: it opens a directory like a file."""
    try:
        file = await sftp.open(directory or ".", FXF_READ, encoding=None)
    except _SFTPError:
        return  # other servers keep entries by themselves, or not: the protocol has no word for it
    try:
        with suppress(UNSUPPORTED):
            await file.fsync()
    finally:
        with suppress(_SFTPError):
            await file.close()


async def tell_full(sftp: SFTPClient, directory: str, size: int, name: str) -> None:
    """Raise InsufficientSpace if the server's disk has no room for so many bytes."""
    try:
        room = await sftp.statvfs(directory)
    except (asyncssh.Error, OSError):
        return  # the first failure is told as it was
    if room.bavail * room.frsize < size:
        raise InsufficientSpace(f"cannot store {name}", cause=f"the server has {room.bavail * room.frsize} bytes left")


async def lstat(sftp: SFTPClient, path: str) -> SFTPAttrs | None:
    try:
        return await sftp.lstat(path)
    except ABSENT:
        return None


async def is_same_file(sftp: SFTPClient, ours: str, other: str) -> bool:
    """Whether a link was made although the server says that it failed, as one over NFS may that asks twice.

    Version 3 tells no inode, so a file of ours gets a time of access that no other has.
    """
    mark = secrets.randbelow(1 << 30)
    try:
        mine = await sftp.lstat(ours)
        await sftp.setstat(ours, SFTPAttrs(atime=mark, mtime=mine.mtime))
    except (UNSUPPORTED, asyncssh.SFTPFailure, asyncssh.SFTPPermissionDenied):
        return False
    found = await lstat(sftp, other)
    return found is not None and found.atime == mark


async def is_directory(sftp: SFTPClient, path: str) -> bool:
    try:
        return kind_of(await sftp.stat(path)) == stat.S_IFDIR
    except ABSENT:
        return False


def kind_of(attributes: SFTPAttrs) -> int:
    """One of stat's S_IF… constants, 0 if the server does not tell."""
    return stat.S_IFMT(attributes.permissions or 0)


def modified_ns(attributes: SFTPAttrs) -> int:
    return int(attributes.mtime or 0) * 10**9 + (attributes.mtime_ns or 0)


def info_of(name: str, attributes: SFTPAttrs) -> ObjectInfo:
    return ObjectInfo(name=name, size=attributes.size or 0, modified_ns=modified_ns(attributes))
