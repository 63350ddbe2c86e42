"""A few SSH connections to one server: opened when they are needed, replaced when they are dead."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncssh

from backstay.core.environment import expanded_if_known
from backstay.errors import BackstayError, InvalidRequest, StorageRefused, StorageUnavailable
from backstay.storage.address import Address
from backstay.storage.patience import Patience
from backstay.storage.sftp_known_hosts import KnownHosts

_LOG: Final = logging.getLogger("backstay.storage")
_OF_THE_MACHINE: Final = "/etc/ssh/ssh_known_hosts"
_CONNECTIONS: Final = 3
_BUSY: Final = 4  # calls on a connection from which on another one is opened
_KEEPALIVE_S: Final = 15  # four of them unanswered: the connection is dead

_DEAD: Final = (
    asyncssh.DisconnectError,
    asyncssh.SFTPConnectionLost,
    asyncssh.SFTPNoConnection,
    asyncssh.ChannelOpenError,
    OSError,  # and TimeoutError, which is one
)


@dataclass(slots=True, eq=False)
class _Connection:
    ssh: asyncssh.SSHClientConnection
    sftp: asyncssh.SFTPClient
    calls: int = 0  # under way


@dataclass(frozen=True, slots=True)
class Lent:
    """A client for one call, and until when the call is waited for."""

    sftp: asyncssh.SFTPClient
    _limit: asyncio.Timeout
    _patience: Patience

    def expect(self, size: int) -> None:
        """Wait longer: it has turned out that so many bytes are to be moved."""
        until = self._limit.when()
        assert until is not None
        self._limit.reschedule(until + size / self._patience.slowest)


class SftpConnections:
    """Lends SFTP clients; a coroutine's property, used on one event loop only.

    `password` is an alternative to agent and keys. Everything else comes from `~/.ssh`, as for `ssh` itself.
    """

    def __init__(self, address: Address, password: str | None, *, patience: Patience) -> None:
        self._address = address
        self._patience = patience
        self._password = password
        self._open: list[_Connection] = []
        self._opening = asyncio.Lock()
        self._warned: set[str] = set()

    @asynccontextmanager
    async def lend(self, size: int = 0) -> AsyncIterator[Lent]:
        """A client for one call that moves `size` bytes. SFTPError stays; all else is StorageUnavailable."""
        connection = await self._least_busy()
        connection.calls += 1
        try:
            async with asyncio.timeout(self._patience.for_transfer(size)) as limit:
                yield Lent(connection.sftp, limit, self._patience)
        except _DEAD as error:
            connection.ssh.abort()  # other calls on it would wait for what does not come
            raise self._lost(error) from error
        finally:
            connection.calls -= 1

    async def close(self) -> None:
        """Say goodbye to the server."""
        for connection in self._open:
            connection.sftp.exit()
            connection.ssh.close()
        with suppress(*_DEAD):
            async with asyncio.timeout(5):
                await asyncio.gather(*(connection.ssh.wait_closed() for connection in self._open))
        self._open.clear()

    async def _least_busy(self) -> _Connection:
        """One that is alive. It is looked at before anything is sent, so that no request is sent twice."""
        async with self._opening:
            self._open = [connection for connection in self._open if not connection.ssh.is_closed()]
            best = min(self._open, key=lambda connection: connection.calls, default=None)
            if best is None or (best.calls >= _BUSY and len(self._open) < _CONNECTIONS):
                try:
                    best = await self._connect()
                except StorageUnavailable:
                    if best is None:  # else the server allows no more of them
                        raise
                else:
                    self._open.append(best)
            return best

    async def _connect(self) -> _Connection:
        try:
            options = await self._options()
            try:
                ssh = await asyncssh.connect(self._address.host, options=options)
            except (asyncssh.HostKeyNotVerifiable, asyncssh.KeyExchangeFailed) as error:
                if _is_about_algorithms(error):
                    raise self._lost(error) from error
                raise self._distrusted(options, str(error)) from error
        except asyncssh.PermissionDenied as error:
            raise self._denied(error) from error
        except _DEAD as error:
            raise self._lost(error) from error
        except ValueError as error:  # what asyncssh raises for configuration and key files that it cannot read
            raise InvalidRequest(
                "the SSH configuration cannot be used",
                cause=str(error),
                hint="check ~/.ssh/config, the keys that it names, and ~/.ssh/known_hosts",
            ) from error
        try:
            async with asyncio.timeout(self._patience.connect):  # the login has a limit of its own, this has none
                return _Connection(ssh, await ssh.start_sftp_client())
        except (*_DEAD, asyncssh.SFTPError) as error:
            ssh.abort()
            raise StorageUnavailable(
                f"{self._address.place} offers no SFTP", cause=_cause(error), hint="enable its SFTP subsystem"
            ) from error

    async def _options(self) -> asyncssh.SSHClientConnectionOptions:
        """As for `ssh`, but with a check of host keys that no configuration takes away.

        `UserKnownHostsFile none` becomes known_hosts=None, by which asyncssh means: check nothing. What is passed
        explicitly stays when a connection reads the configuration again (canonical names, `Match final`).
        """
        address = self._address
        first: asyncssh.SSHClientConnectionOptions = await asyncssh.SSHClientConnectionOptions.construct(
            config=(),  # ~/.ssh/config; without this word it would be read later, behind the check below
            host=address.host,
            port=address.port or (),
            username=address.user or (),
            password=self._password,
            connect_timeout=self._patience.connect,
            login_timeout=self._patience.connect,
            keepalive_interval=_KEEPALIVE_S,
        )
        if first.known_hosts is None:
            raise InvalidRequest(
                "the SSH configuration switches off the check of host keys",
                cause="UserKnownHostsFile is none",
                hint="name a file there: whoever answers in place of the server could read and delete the repository",
            )
        checked: asyncssh.SSHClientConnectionOptions = await asyncssh.SSHClientConnectionOptions.construct(
            first,
            config=(),
            host=address.host,
            known_hosts=KnownHosts.read(_files_of_known_hosts(first), warn=self._warn_once),
        )
        return checked

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            _LOG.warning("%s", text)

    def _distrusted(self, options: asyncssh.SSHClientConnectionOptions, cause: str) -> BackstayError:
        port = f"-p {self._address.port} " if self._address.port else ""
        connect = f"`ssh {port}{self._address.host}`"
        if _has_keys(options):
            return StorageRefused(
                f"{self._address.place} does not have the host key that known_hosts names",
                cause=cause,
                hint="somebody may have taken its place: ask whoever runs the server, by another way, for the "
                "fingerprint of its key; if that is new, take the old entry out of known_hosts with `ssh-keygen -R`, "
                f"and connect once with {connect}",
            )
        return StorageRefused(
            f"the host key of {self._address.place} is not known",
            cause=cause or "no entry of known_hosts fits",
            hint=f"connect once with {connect}, compare the fingerprint that it shows with the "
            "server's own, and accept it: that adds it to ~/.ssh/known_hosts",
        )

    def _denied(self, error: asyncssh.PermissionDenied) -> BackstayError:
        return StorageRefused(
            f"{self._address.place} does not let us in",
            cause=_cause(error),
            hint="add the key to the SSH agent or to ~/.ssh, name it in ~/.ssh/config, "
            "or set BACKSTAY_SFTP_PASSWORD; `ssh -v` shows what the server expects",
        )

    def _lost(self, error: Exception) -> BackstayError:
        return StorageUnavailable(
            f"{self._address.place} cannot be reached" if not self._open else f"{self._address.place} went away",
            cause=_cause(error),
            hint="check the address, the network, and that the SSH server runs",
        )


def _is_about_algorithms(error: asyncssh.DisconnectError) -> bool:
    """Whether both sides found no way to talk; a server that has none of the kinds of key that are known says so."""
    return isinstance(error, asyncssh.KeyExchangeFailed) and "host key" not in str(error)


def _has_keys(options: asyncssh.SSHClientConnectionOptions) -> bool:
    """Whether known_hosts names keys of this host, or an authority for it."""
    host = options.host_key_alias or options.host
    keys, authorities, *_ = asyncssh.match_known_hosts(options.known_hosts, host, "", options.port)
    return bool(keys or authorities)


def _files_of_known_hosts(options: asyncssh.SSHClientConnectionOptions) -> list[Path]:
    """Those that the configuration names, or the user's, and the machine's; those of them that exist."""
    named = options.known_hosts if isinstance(options.known_hosts, list) else []
    files = [expanded_if_known(str(file)) for file in (*(named or ["~/.ssh/known_hosts"]), _OF_THE_MACHINE)]
    return [file for file in files if file.is_file()]


def _cause(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
