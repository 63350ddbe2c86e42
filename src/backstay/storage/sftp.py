"""Objects as files of a directory on an SFTP server."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final, TypeAlias, TypeVar

import asyncssh
from asyncssh import FXF_READ, SFTPAttrs, SFTPClient

from backstay.errors import (
    InsufficientSpace,
    InvalidRequest,
    ObjectExists,
    ObjectNotFound,
    StorageMissing,
    StorageRefused,
    StorageUnavailable,
)
from backstay.storage.address import Address, parse_address
from backstay.storage.backend import Buffer, Capabilities, ObjectInfo, StorageBackend
from backstay.storage.loop_thread import LoopThread
from backstay.storage.names import TEMPORARY, check_name, check_prefix, check_range, is_component, is_temporary
from backstay.storage.patience import REMOTE, Patience
from backstay.storage.sftp_connections import Lent, SftpConnections
from backstay.storage.sftp_files import (
    ABSENT,
    PRIVATE_DIRECTORY,
    discard,
    info_of,
    is_directory,
    kind_of,
    modified_ns,
    replace,
    sync_directory,
    tell_full,
    write,
)
from backstay.storage.sftp_publishing import SftpPublishing
from backstay.storage.sweeping import outlived
from backstay.storage.transfer import flat, span, temporary_name, too_short

T = TypeVar("T")
_Infos: TypeAlias = Iterator[ObjectInfo]  # inside the class `list` is the method
_Found: TypeAlias = list[tuple[str, SFTPAttrs]]
_Entries: TypeAlias = list[tuple[str, int, SFTPAttrs]]

_PARALLEL_LISTINGS: Final = 8

_FULL: Final = (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded)
_SFTPError: Final = asyncssh.SFTPError


class SftpStorage(StorageBackend):
    """A directory on a server that speaks SFTP version 3, with OpenSSH's extensions where it has them.

    The first `store` makes the directory. One that was there and is not any more is StorageMissing.
    """

    def __init__(self, address: Address, *, password: str | None = None, patience: Patience = REMOTE) -> None:
        self._address = address
        self._patience = patience
        self._root = address.path.removeprefix("/~/")
        self._loop = LoopThread("sftp", told=(asyncssh.Error, OSError))
        self._connections: SftpConnections | None = None
        self._password = password
        self._publishing = SftpPublishing()
        self._seen = False  # whether the directory has been there

    @property
    def url(self) -> str:
        return str(self._address)

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override] # depends on the server, and is never assigned
        """Asks the server. Without hard links and exclusive creation nothing decides between two writers.

        A server that has neither is no file system but pretends to be one, and was seen to replace in two steps.
        """
        real = self._call(self._creates_atomically(), f"cannot examine {self.url}")
        return Capabilities(atomic_create=real, atomic_replace=real)

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        check_name(name)
        self._call(self._store(name, flat(data), overwrite), f"cannot store {name}")

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        check_name(name)
        check_range(start, length)
        return self._call(self._retrieve(name, start, length), f"cannot read {name}")

    def delete(self, name: str) -> None:
        check_name(name)
        self._call(self._delete(name), f"cannot delete {name}")

    def list(self, prefix: str = "") -> _Infos:
        check_prefix(prefix)
        return self._call(self._list(prefix), f"cannot list {self.url}/{prefix}")

    def stat(self, name: str) -> ObjectInfo:
        check_name(name)
        return self._call(self._stat(name), f"cannot examine {name}")

    def sweep_temporaries(self, older_than_s: float) -> int:
        """Remove what interrupted stores left behind, by age alone: their processes may be on other hosts."""
        title = f"cannot clean up {self.url}"
        files = [(name, modified_ns(found)) for name, found in self._call(self._files("", ""), title)]
        left = outlived(self, (file for file in files if is_temporary(file[0])), older_than_s)
        return self._call(self._remove(left), title)

    def close(self) -> None:
        if self._connections is not None:
            self._loop.run(self._connections.close())
            self._connections = None
        self._loop.close()

    # --- writing ---

    async def _store(self, name: str, data: bytes, overwrite: bool) -> None:
        final = self._path(name)
        directory = final.rpartition("/")[0]
        temporary = f"{directory}/{temporary_name()}"
        async with self._client(len(data)) as sftp:
            try:
                await self._write_below_root(sftp, temporary, data)  # here: a temporary file that no listing shows
                if overwrite:
                    await replace(sftp, temporary, final)
                else:
                    await self._publishing.publish(sftp, temporary, final, name)
            except BaseException as error:
                await discard(sftp, temporary)
                if isinstance(error, ObjectExists):  # its writer may not have come to the next line yet
                    await sync_directory(sftp, directory)
                elif isinstance(error, asyncssh.SFTPFailure):  # version 3 has no word for a full disk
                    await tell_full(sftp, directory, len(data), name)
                raise
            self._seen = True
            # Here the whole object is there; the removal may be lost, and is made up for by the sweep.
            await asyncio.gather(discard(sftp, temporary), sync_directory(sftp, directory))

    async def _write_below_root(self, sftp: SFTPClient, temporary: str, data: bytes) -> None:
        """Write; make the directories only when they turn out to be missing."""
        try:
            await write(sftp, temporary, data)
        except ABSENT:
            await self._make_directory(sftp, temporary.rpartition("/")[0])
            await write(sftp, temporary, data)

    async def _make_directory(self, sftp: SFTPClient, directory: str) -> None:
        if self._seen:
            await self._check_root(sftp)
        missing: list[str] = []
        while directory and not await is_directory(sftp, directory):
            missing.append(directory)
            directory = directory.rpartition("/")[0]
        for path in reversed(missing):
            try:
                await sftp.mkdir(path, PRIVATE_DIRECTORY)
            except _SFTPError:
                if not await is_directory(sftp, path):  # else somebody else has just made it
                    raise
            await sync_directory(sftp, path.rpartition("/")[0])
        self._seen = True

    async def _creates_atomically(self) -> bool:
        async with self._client() as sftp:
            return await self._publishing.creates_atomically(sftp, self._root, self._make_directory)

    # --- reading ---

    async def _retrieve(self, name: str, start: int, length: int | None) -> bytes:
        path = self._path(name)
        async with self._lent() as lent:
            try:
                file = await lent.sftp.open(path, FXF_READ, encoding=None)
            except _SFTPError:
                attributes = await self._find(lent.sftp, path)
                if attributes is None or kind_of(attributes) == stat.S_IFDIR:
                    raise ObjectNotFound(name) from None
                raise
            self._seen = True
            try:
                return await _read(file, name, start, length, lent.expect)
            finally:
                with suppress(_SFTPError):
                    await file.close()

    async def _delete(self, name: str) -> None:
        path = self._path(name)
        async with self._client() as sftp:
            try:
                await sftp.remove(path)
            except _SFTPError:
                attributes = await self._find(sftp, path)
                if attributes is not None and kind_of(attributes) != stat.S_IFDIR:
                    raise
            else:
                await sync_directory(sftp, path.rpartition("/")[0])

    async def _stat(self, name: str) -> ObjectInfo:
        async with self._client() as sftp:
            attributes = await self._find(sftp, self._path(name))
            if attributes is None or kind_of(attributes) != stat.S_IFREG:
                raise ObjectNotFound(name)
            return info_of(name, attributes)

    async def _list(self, prefix: str) -> _Infos:
        base, _, stem = prefix.rpartition("/")
        files = await self._files(base, stem)
        return iter([info_of(name, found) for name, found in files if is_component(name.rpartition("/")[2])])

    async def _remove(self, names: Sequence[str]) -> int:
        """How many of them were there still."""
        removed = 0
        for name in names:
            async with self._client() as sftp:
                with suppress(*ABSENT):
                    await sftp.remove(self._path(name))
                    removed += 1
        return removed

    async def _files(self, base: str, stem: str) -> _Found:
        """All files below `base` that begin with `stem` there; a directory that vanishes meanwhile is an error."""
        async with self._client() as sftp:
            attributes = await self._find(sftp, self._path(base) if base else self._root)
            if attributes is None or kind_of(await self._followed(sftp, self._path(base), attributes)) != stat.S_IFDIR:
                if not base:
                    raise StorageMissing(f"no directory {self.url}", cause="something else is there")
                return []
        found: _Found = []
        directories = [(base, stem)]
        limit = asyncio.Semaphore(_PARALLEL_LISTINGS)
        while directories:
            levels = await asyncio.gather(*(self._read_directory(limit, name, stem) for name, stem in directories))
            entries = [entry for level in levels for entry in level]
            directories = [(name, "") for name, kind, _ in entries if kind == stat.S_IFDIR]
            found += [(name, attributes) for name, kind, attributes in entries if kind == stat.S_IFREG]
        return found

    async def _read_directory(self, limit: asyncio.Semaphore, directory: str, stem: str) -> _Entries:
        """Name, kind and attributes of each entry that begins with `stem` and can be part of an object's name."""
        entries: _Entries = []
        async with limit, self._client() as sftp:
            async for entry in sftp.scandir(self._path(directory) if directory else self._root):
                leaf = os.fsdecode(entry.filename)
                name = f"{directory}/{leaf}" if directory else leaf
                if not leaf.startswith(stem) or not (is_component(leaf) or leaf.startswith(TEMPORARY)):
                    continue
                attributes = await self._followed(sftp, self._path(name), entry.attrs)
                entries.append((name, kind_of(attributes), attributes))
        return entries

    async def _followed(self, sftp: SFTPClient, path: str, attributes: SFTPAttrs) -> SFTPAttrs:
        """Attributes that are whole; a link may lead to a directory, but is no object."""
        if kind_of(attributes) == stat.S_IFLNK:
            attributes = await sftp.stat(path)
            if kind_of(attributes) != stat.S_IFDIR:
                raise StorageUnavailable(
                    f"cannot list {self.url}", cause=f"{path} is a link where an object is expected"
                )
        elif not kind_of(attributes) or attributes.size is None:  # some servers list names only
            attributes = await sftp.lstat(path)
        return attributes

    # --- absent or unknown ---

    async def _find(self, sftp: SFTPClient, path: str) -> SFTPAttrs | None:
        """What lies at the path, or None on proof that nothing does: the store is there, and what leads to it."""
        try:
            return await sftp.lstat(path)
        except ABSENT:
            await self._check_root(sftp)
            return None
        except _SFTPError:
            # Servers have different words for "the way leads through a file".
            parent = path.rpartition("/")[0]
            if path == self._root or len(parent) < len(self._root):
                raise
            above = await self._find(sftp, parent)
            if above is None or kind_of(above) == stat.S_IFREG:
                return None
            raise

    async def _check_root(self, sftp: SFTPClient) -> None:
        try:
            attributes = await sftp.stat(self._root)
        except ABSENT as error:
            raise StorageMissing(
                f"no directory {self.url}",
                cause=str(error),
                hint="check the address, and that the disk is mounted there",
            ) from error
        if kind_of(attributes) != stat.S_IFDIR:
            raise StorageMissing(f"no directory {self.url}", cause="it is a file", hint="check the address")
        self._seen = True

    # --- calls ---

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @asynccontextmanager
    async def _client(self, size: int = 0) -> AsyncIterator[SFTPClient]:
        async with self._lent(size) as lent:
            yield lent.sftp

    def _lent(self, size: int = 0) -> AbstractAsyncContextManager[Lent]:
        if self._connections is None:
            self._connections = SftpConnections(self._address, self._password, patience=self._patience)
        return self._connections.lend(size)

    def _call(self, work: Coroutine[Any, Any, T], title: str) -> T:
        """Wait for the work, and put what the server said into our words."""
        try:
            return self._loop.run(work)
        except _FULL as error:
            raise InsufficientSpace(title, cause=str(error)) from error
        except asyncssh.SFTPPermissionDenied as error:
            hint = "check the owner and the permissions of the directory on the server"
            raise StorageRefused(title, cause=str(error), hint=hint) from error
        except asyncssh.Error as error:
            raise StorageUnavailable(title, cause=str(error) or type(error).__name__) from error


async def _read(
    file: asyncssh.SFTPClientFile, name: str, start: int, length: int | None, expect: Callable[[int], None]
) -> bytes:
    attributes = await file.stat()
    if kind_of(attributes) not in (stat.S_IFREG, 0):
        raise ObjectNotFound(name)  # OpenSSH opens directories too
    wanted = span(name, start, length, attributes.size or 0)  # before anything is allocated
    expect(wanted)
    data: bytes = await file.read(wanted, start) if wanted else b""
    if len(data) != wanted:
        raise too_short(name, start, length, start + len(data))
    return data


def open_sftp(url: str) -> SftpStorage:
    """What `sftp://[user@]host[:port]/path` means; `/~/path` begins at the user's home directory."""
    address = parse_address(url, credentials="use an SSH key or agent, or set BACKSTAY_SFTP_PASSWORD")
    if address.path in ("", "/~"):
        raise InvalidRequest("the sftp: address names no directory", hint="write sftp://host/path")
    return SftpStorage(address, password=os.environ.get("BACKSTAY_SFTP_PASSWORD"))
