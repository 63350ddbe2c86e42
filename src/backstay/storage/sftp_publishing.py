"""How a finished file on an SFTP server gets its name, unless that is taken: by the strongest means the server has."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Final, TypeAlias

import asyncssh
from asyncssh import SFTPClient

from backstay.errors import ObjectExists
from backstay.storage.sftp_claims import Claims
from backstay.storage.sftp_files import (
    ABSENT,
    EXISTS,
    UNSUPPORTED,
    discard,
    is_same_file,
    lstat,
    rename_if_absent,
    touch,
)
from backstay.storage.transfer import temporary_name

MakeDirectory: TypeAlias = Callable[[SFTPClient, str], Awaitable[None]]
_TURNS: Final = 64
_SFTPError: Final = asyncssh.SFTPError


class SftpPublishing:
    """Hard links, else claims, else turns within this process; what the server can do is found out once."""

    def __init__(self) -> None:
        self._turns = [asyncio.Lock() for _ in range(_TURNS)]
        self._links: bool | None = None  # whether the server makes hard links; None: not tried yet
        self._held = Claims()
        self._claims: bool | None = None  # whether it refuses to create a file twice

    async def publish(self, sftp: SFTPClient, temporary: str, final: str, name: str) -> None:
        """Give the finished file its name. Raises ObjectExists, asyncssh.Error."""
        if self._links is not False and await self._link(sftp, temporary, final, name):
            return
        claims = await self._refuses_twice(sftp, final.rpartition("/")[0])
        turn = self._turns[zlib.crc32(name.encode()) % _TURNS]  # this process, at least, is one writer
        async with turn, self._held.held(sftp, final, name) if claims else nullcontext():
            await rename_if_absent(sftp, temporary, final, name)

    async def _link(self, sftp: SFTPClient, temporary: str, final: str, name: str) -> bool:
        """Whether the server made the second name; False if it has no hard links."""
        try:
            await sftp.link(temporary, final)
        except UNSUPPORTED:
            self._links = False
            return False
        except (EXISTS, asyncssh.SFTPFailure) as error:  # the second is what version 3 says of most things
            if isinstance(error, EXISTS) or await lstat(sftp, final) is not None:
                if not await is_same_file(sftp, temporary, final):
                    raise ObjectExists(name) from None
            elif self._links:  # links were made before: this is another failure
                raise
            else:
                self._links = False  # a file system without them, below a server that knows the word
                return False
        self._links = True
        return True

    async def creates_atomically(self, sftp: SFTPClient, root: str, make_root: MakeDirectory) -> bool:
        """Whether one of several writers of a name succeeds; `make_root` makes the directory to try it in."""
        if self._links is None:
            try:  # nothing of this name exists; only a server that knows the request looks for it
                await sftp.link(f"{root}/{temporary_name()}", f"{root}/{temporary_name()}")
            except ABSENT:
                return True
            except (UNSUPPORTED, asyncssh.SFTPFailure):
                self._links = False
        if self._links:
            return True
        await make_root(sftp, root)
        return await self._refuses_twice(sftp, root)

    async def _refuses_twice(self, sftp: SFTPClient, directory: str) -> bool:
        """Whether exclusive creation is what it says; some servers ignore the word."""
        if self._claims is None:
            path = f"{directory}/{temporary_name()}"
            await touch(sftp, path)
            try:
                await touch(sftp, path)
            except _SFTPError:
                self._claims = True
            else:
                self._claims = False
            finally:
                await discard(sftp, path)
        return self._claims
