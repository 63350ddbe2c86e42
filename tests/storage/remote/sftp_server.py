"""An SFTP server in this process, with knobs for what servers lack and what can go wrong."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncssh

if TYPE_CHECKING:
    from tests.storage.remote.conftest import Keys

USER = "keeper"
PASSWORD = "open sesame"


class Behaviour:
    """What the server does differently, and what it was asked for."""

    def __init__(self) -> None:
        self.links = True
        self.exclusive = True
        self.posix_rename = True
        self.fsync = True
        self.fail: dict[str, int] = {}  # method: errno
        self.cut: set[str] = set()  # methods before whose effect the connection is lost, once
        self.free: int | None = None  # bytes that it says are left on its disk
        self.stored_less = 0  # bytes that a written file loses
        self.read_s = 0.0  # how long a read takes
        self.calls: Counter[str] = Counter()
        self.done: dict[str, Callable[[str], None]] = {}  # method: what happens between its end and its answer


class _Server(asyncssh.SFTPServer):
    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], root: Path, behaviour: Behaviour) -> None:
        super().__init__(channel, chroot=os.fsencode(root))
        self._behaviour, self._channel = behaviour, channel

    def _called(self, name: str) -> None:
        self._behaviour.calls[name] += 1
        if name in self._behaviour.cut:
            self._behaviour.cut.remove(name)
            self._channel.get_connection().abort()
            raise ConnectionResetError
        if name in self._behaviour.fail:
            number = self._behaviour.fail[name]
            raise OSError(number, os.strerror(number))

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        self._called("open")
        if not self._behaviour.exclusive:
            pflags &= ~asyncssh.FXF_EXCL
        if pflags == asyncssh.FXF_READ and Path(os.fsdecode(self.map_path(path))).is_dir():  # as OpenSSH does
            return os.open(self.map_path(path), os.O_RDONLY)
        return super().open(path, pflags, attrs)

    def close(self, file_obj: Any) -> None:
        if isinstance(file_obj, int):
            os.close(file_obj)
        else:
            super().close(file_obj)

    def fstat(self, file_obj: Any) -> Any:
        return os.fstat(file_obj if isinstance(file_obj, int) else file_obj.fileno())

    def write(self, file_obj: object, offset: int, data: bytes) -> Any:
        self._called("write")
        return super().write(file_obj, offset, data[: len(data) - self._behaviour.stored_less])

    def read(self, file_obj: object, offset: int, size: int) -> Any:
        self._called("read")
        if not self._behaviour.read_s:
            return super().read(file_obj, offset, size)
        return self._read_later(file_obj, offset, size)

    async def _read_later(self, file_obj: object, offset: int, size: int) -> Any:
        await asyncio.sleep(self._behaviour.read_s)
        return super().read(file_obj, offset, size)

    def fsync(self, file_obj: Any) -> Any:
        self._called("sync directory" if isinstance(file_obj, int) else "fsync")
        if not self._behaviour.fsync:
            raise asyncssh.SFTPOpUnsupported("no such extension")
        if isinstance(file_obj, int):
            os.fsync(file_obj)
            return None
        return super().fsync(file_obj)

    def link(self, oldpath: bytes, newpath: bytes) -> Any:
        self._called("link")
        if not self._behaviour.links:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        super().link(oldpath, newpath)
        self._behaviour.done.get("link", str)("link")

    def rename(self, oldpath: bytes, newpath: bytes) -> Any:
        self._called("rename")
        super().rename(oldpath, newpath)
        self._behaviour.done.get("rename", str)("rename")

    def posix_rename(self, oldpath: bytes, newpath: bytes) -> Any:
        self._called("posix_rename")
        if not self._behaviour.posix_rename:
            raise asyncssh.SFTPOpUnsupported("no such extension")
        return super().posix_rename(oldpath, newpath)

    def remove(self, path: bytes) -> Any:
        self._called("remove")
        return super().remove(path)

    def mkdir(self, path: bytes, attrs: asyncssh.SFTPAttrs) -> Any:
        self._called("mkdir")
        return super().mkdir(path, attrs)

    def scandir(self, path: bytes) -> Any:
        self._called("scandir")
        return super().scandir(path)

    def statvfs(self, path: bytes) -> Any:
        found = super().statvfs(path)
        if self._behaviour.free is None:
            return found
        return asyncssh.SFTPVFSAttrs(bsize=1, frsize=1, blocks=1 << 30, bavail=self._behaviour.free)

    def lstat(self, path: bytes) -> Any:
        self._called("lstat")
        return super().lstat(path)

    def stat(self, path: bytes) -> Any:
        self._called("stat")
        return super().stat(path)


class _Doorkeeper(asyncssh.SSHServer):
    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == (USER, PASSWORD)


class SftpServer:
    """Listens on a port of loopback until it is stopped; files lie below `root`."""

    def __init__(self, root: Path, host_key: asyncssh.SSHKey, authorized: Path) -> None:
        self.behaviour = Behaviour()
        self.port = 0
        self._root, self._host_key, self._authorized = root, host_key, authorized
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._acceptor: asyncssh.SSHAcceptor | None = None

    def start(self) -> SftpServer:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(20)
        return self

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        self._acceptor = await asyncssh.listen(
            "127.0.0.1",
            self.port,
            server_factory=_Doorkeeper,
            server_host_keys=[self._host_key],
            authorized_client_keys=str(self._authorized),
            sftp_factory=lambda channel: _Server(channel, self._root, self.behaviour),
        )
        self.port = self._acceptor.get_port()

    async def _end(self) -> None:
        if self._acceptor is not None:
            self._acceptor.close()
            await self._acceptor.wait_closed()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def address(port: int, path: str = "/made/repository") -> str:
    return f"sftp://{USER}@127.0.0.1:{port}{path}"


def trust(home: Path, keys: Keys, port: int) -> None:
    with (home / ".ssh" / "known_hosts").open("a") as known:
        known.write(keys.known_host(port))


def files_of(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def make_older(path: Path, seconds: int) -> None:
    os.utime(path, (0, path.stat().st_mtime - seconds))
