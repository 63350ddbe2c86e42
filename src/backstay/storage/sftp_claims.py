"""The sole right to create one object, on an SFTP server whose exclusive creation is the strongest that it has.

A claim is a file beside the object, held for the few requests that look whether the name is free and rename to it; the
bytes are on the server before. It says whose it is: what a broken connection left of us is ours to remove. One of
somebody else is dead when it is older, by the server's clock, than twice the time after which its holder gives up.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncssh
from asyncssh import FXF_READ, SFTPClient

from backstay.errors import ObjectExists, StorageUnavailable
from backstay.storage.names import TEMPORARY
from backstay.storage.sftp_files import ABSENT, CREATE, EXISTS, PRIVATE_FILE, discard, lstat, modified_ns

_CLAIM: Final = f"{TEMPORARY}claim-"
_STEP_S: Final = 0.05
_STEPS: Final = 600
_LOOK: Final = 100  # steps between two looks at how old the claim of somebody else is
_HELD_S: Final = 120.0
_DEAD_NS: Final = 300 * 10**9


class Claims:
    """Those of one store. A caller sees to it that it makes one claim to a name at a time."""

    def __init__(self) -> None:
        self._token = secrets.token_hex(16).encode()

    @asynccontextmanager
    async def held(self, sftp: SFTPClient, final: str, name: str) -> AsyncIterator[None]:
        """Raises ObjectExists, TimeoutError when it was held for so long that others may take it for dead."""
        directory, _, leaf = final.rpartition("/")
        path = f"{directory}/{_CLAIM}{hashlib.sha256(leaf.encode()).hexdigest()}"
        await self._take(sftp, path, final, name)
        limit = asyncio.timeout(_HELD_S)
        try:
            async with limit:
                yield
        finally:
            if not limit.expired():  # else it may be the claim of somebody else by now
                await discard(sftp, path)

    async def _take(self, sftp: SFTPClient, path: str, final: str, name: str) -> None:
        for step in range(_STEPS):
            if await self._create(sftp, path):
                return
            ours = await self._is_ours(sftp, path)
            if not ours and await lstat(sftp, final) is not None:
                raise ObjectExists(name)
            if ours or step % _LOOK == _LOOK // 5:
                await self._remove_dead(sftp, path)
            await asyncio.sleep(_STEP_S)
        raise StorageUnavailable(
            f"cannot store {name}",
            cause="another writer has been about to store it for a long time, or died while it was",
            hint="try again in a few minutes",
        )

    async def _create(self, sftp: SFTPClient, path: str) -> bool:
        """Make the file and write into it whose it is. False if there is one."""
        try:
            file = await sftp.open(path, CREATE, PRIVATE_FILE, encoding=None)
        except (EXISTS, asyncssh.SFTPFailure):
            return False
        try:
            async with file:
                await file.write(self._token, 0)
        except BaseException:
            await discard(sftp, path)
            raise
        return True

    async def _is_ours(self, sftp: SFTPClient, path: str) -> bool:
        try:
            async with sftp.open(path, FXF_READ, encoding=None) as file:
                found: bytes = await file.read(len(self._token), 0)
        except (*ABSENT, asyncssh.SFTPPermissionDenied):
            return False
        return found == self._token

    async def _remove_dead(self, sftp: SFTPClient, path: str) -> None:
        """Remove a claim that nobody holds any more, which only the holder of a second one may do.

        Else of two who found the same dead one, the slower removed the new claim of the faster. Who dies in here
        leaves the second one to itself, or to the sweep.
        """
        second = f"{path}-2"
        if not await self._create(sftp, second):
            if await self._is_ours(sftp, second):
                await discard(sftp, second)
            return
        try:
            async with asyncio.timeout(_HELD_S):
                found, now = await asyncio.gather(lstat(sftp, path), sftp.lstat(second))
                if found is None:
                    return
                if modified_ns(now) - modified_ns(found) > _DEAD_NS or await self._is_ours(sftp, path):
                    await discard(sftp, path)
        finally:
            await discard(sftp, second)
