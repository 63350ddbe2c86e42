"""Objects as files of a directory on an FTP server, plain or with TLS."""

from __future__ import annotations

import contextlib
import ftplib
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, TypeAlias

from backstay.core.clock import Clock, SystemClock, ns_from_datetime
from backstay.errors import (
    BackstayError,
    InvalidRequest,
    ObjectExists,
    ObjectNotFound,
    StorageMissing,
    StorageUnavailable,
)
from backstay.storage.address import Address, parse_address
from backstay.storage.backend import Buffer, Capabilities, ObjectInfo, StorageBackend
from backstay.storage.ftp_connections import Ftp, FtpConnections, code_of, refusal
from backstay.storage.logins import Login, find_login, where_logins_belong
from backstay.storage.names import TEMPORARY, check_name, check_prefix, check_range, is_component, is_temporary
from backstay.storage.patience import REMOTE, Patience
from backstay.storage.sweeping import outlived
from backstay.storage.transfer import Turns, check_stored, flat, span, temporary_name, too_short

_Infos: TypeAlias = Iterator[ObjectInfo]  # inside the class `list` is the method
_Facts: TypeAlias = Mapping[str, str]

_PIECE: Final = 1 << 18
_SYSTEM_CLOCK: Final = SystemClock()
_DIGITS: Final = 18  # of an exabyte
_NO_SUCH: Final = ("550", "553", "450", "501")  # what servers say of paths that are not there, and of much else
_COMPLETE: Final = ("226", "250")  # RFC 959, section 5.4: the only good ends of a transfer


class FtpStorage(StorageBackend):
    """A directory. FTP has no way to create a file only if there is none, so two writers can both succeed.

    The first `store` makes the directory. One that was there and is not any more is StorageMissing.
    """

    capabilities = Capabilities(atomic_create=False, atomic_replace=False)

    def __init__(
        self,
        address: Address,
        login: Login | None = None,
        *,
        clock: Clock = _SYSTEM_CLOCK,
        patience: Patience = REMOTE,
    ) -> None:
        self._address = address
        self._root = address.path.removeprefix("/~/")
        self._connections = FtpConnections(address, login, clock=clock, patience=patience)
        self._turns = Turns()
        self._seen = False  # whether the directory has been there

    @property
    def url(self) -> str:
        return str(self._address)

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        check_name(name)
        final = self._path(name)
        temporary = f"{final.rpartition('/')[0]}/{temporary_name()}"
        content = flat(data)
        with self._server(f"cannot store {name}") as ftp:
            try:
                self._upload(ftp, temporary, content)  # here: a temporary file that no listing shows
                check_stored(name, len(content), ftp.size(temporary))
                with self._turns.of(name):
                    if not overwrite and self._find(ftp, final) is not None:
                        raise ObjectExists(name)
                    ftp.rename(temporary, final)
                self._seen = True
            except BaseException:
                _discard(ftp, temporary)
                raise

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        check_name(name)
        check_range(start, length)
        with self._server(f"cannot read {name}") as ftp:
            facts = self._find(ftp, self._path(name))
            if not _is_file(facts):
                raise ObjectNotFound(name)
            self._seen = True
            wanted = span(name, start, length, _size(name, facts))
            data = _download(ftp, self._path(name), start, wanted) if wanted else b""
            if len(data) != wanted:
                raise too_short(name, start, length, start + len(data))
            return data

    def delete(self, name: str) -> None:
        check_name(name)
        with self._server(f"cannot delete {name}") as ftp:
            try:
                ftp.delete(self._path(name))
            except ftplib.error_perm:
                if _is_file(self._find(ftp, self._path(name))):
                    raise

    def list(self, prefix: str = "") -> _Infos:
        check_prefix(prefix)
        base, _, stem = prefix.rpartition("/")
        with self._server(f"cannot list {self.url}/{prefix}") as ftp:
            found = [*self._files(ftp, base, stem)]
        return (_info(name, facts) for name, facts in found if is_component(name.rpartition("/")[2]))

    def stat(self, name: str) -> ObjectInfo:
        check_name(name)
        with self._server(f"cannot examine {name}") as ftp:
            facts = self._find(ftp, self._path(name))
        if not _is_file(facts):
            raise ObjectNotFound(name)
        return _info(name, facts or {})

    def sweep_temporaries(self, older_than_s: float) -> int:
        """Remove what interrupted stores left behind, by age alone: their processes may be on other hosts."""
        title = f"cannot clean up {self.url}"
        with self._server(title) as ftp:
            files = [(name, _modified_ns(facts)) for name, facts in self._files(ftp, "", "")]
        left = outlived(self, (file for file in files if is_temporary(file[0])), older_than_s)
        removed = 0
        with self._server(title) as ftp:
            for name in left:
                with contextlib.suppress(ftplib.error_perm):  # somebody else was faster
                    ftp.delete(self._path(name))
                    removed += 1
        return removed

    def close(self) -> None:
        self._connections.close()

    # --- writing ---

    def _upload(self, ftp: Ftp, path: str, content: bytes) -> None:
        try:
            _send(ftp, path, content)
        except (ftplib.error_perm, ftplib.error_temp) as error:
            if code_of(error) not in _NO_SUCH:
                raise
            self._make_directory(ftp, path.rpartition("/")[0])
            _send(ftp, path, content)

    def _make_directory(self, ftp: Ftp, directory: str) -> None:
        """Make what is missing of the way to it; never the root again that was there before."""
        if self._seen:
            self._check_root(ftp)
        missing: list[str] = []
        while directory.strip("/"):
            try:
                ftp.mkd(directory)
                break
            except ftplib.error_perm:
                if _is_directory(_ask(ftp, directory)):
                    break
            missing.append(directory)
            directory = directory.rpartition("/")[0]
        for path in reversed(missing):
            with contextlib.suppress(ftplib.error_perm):  # somebody else may have made it; the upload tells
                ftp.mkd(path)

    # --- reading ---

    def _files(self, ftp: Ftp, base: str, stem: str) -> Iterator[tuple[str, _Facts]]:
        """All files below `base` that begin with `stem` there; a directory that vanishes is an error."""
        start = self._find(ftp, self._path(base) if base else self._root)
        if not _is_directory(start):
            if not base:
                raise self._missing()
            return
        pending = [(base, stem)]
        while pending:
            directory, stem = pending.pop()
            for leaf, facts in _listing(ftp, self._path(directory) if directory else self._root):
                name = f"{directory}/{leaf}" if directory else leaf
                if not leaf.startswith(stem) or not (is_component(leaf) or leaf.startswith(TEMPORARY)):
                    continue
                if _is_directory(facts):
                    pending.append((name, ""))
                elif _is_file(facts):
                    yield name, facts
                elif facts.get("type", "").lower() not in ("cdir", "pdir"):
                    raise StorageUnavailable(
                        f"cannot list {self.url}",
                        cause=f"{name} is neither a file nor a directory: {facts.get('type')}",
                    )

    def _find(self, ftp: Ftp, path: str) -> _Facts | None:
        """What lies at the path. None on proof that nothing does: 550 is also what servers say when they forbid it,
        so the directory above is read, up to the root, which must be there.
        """
        facts = _ask(ftp, path)
        if facts is not None:
            if path == self._root:
                self._seen = True
            return facts
        if path == self._root:
            raise self._missing()
        parent, _, leaf = path.rpartition("/")
        above = self._find(ftp, parent)
        if _is_directory(above) and any(name == leaf for name, _ in _listing(ftp, parent)):
            # It has come since, or it is there and may not be looked at.
            facts = _ask(ftp, path)
            if facts is None:
                cause = "the server lists it and then denies it"
                raise StorageUnavailable(f"{path} cannot be examined", cause=cause, hint="check its permissions")
            return facts
        return None

    def _check_root(self, ftp: Ftp) -> None:
        if not _is_directory(self._find(ftp, self._root)):
            raise self._missing()

    def _missing(self) -> BackstayError:
        return StorageMissing(
            f"no directory {self.url}",
            cause="the server has none, or does not show it",
            hint="check the address, the permissions, and that the disk is mounted there",
        )

    # --- calls ---

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _server(self, title: str) -> Iterator[Ftp]:
        try:
            with self._connections.connection() as ftp:
                yield ftp
        except ftplib.error_perm as error:
            raise refusal(title, error) from error


def _ask(ftp: Ftp, path: str) -> _Facts | None:
    """The facts of a path, or None if the server says that there is none, or forbids to look."""
    try:
        answer = ftp.sendcmd(f"MLST {path}")
    except ftplib.error_perm as error:
        if code_of(error) not in _NO_SUCH:
            raise
        return None
    for line in answer.splitlines()[1:]:
        if "=" in line:
            return _facts(line.strip().partition(" ")[0])
    raise StorageUnavailable(f"cannot examine {path}", cause="the server's answer to MLST makes no sense")


def _listing(ftp: Ftp, directory: str) -> list[tuple[str, _Facts]]:
    """Names and facts of a directory. `ftplib.mlsd` would switch the connection to text mode, and leave it so."""
    with ftp.transfercmd(f"MLSD {directory}") as data:
        text = b"".join(iter(lambda: data.recv(_PIECE), b""))
        _end(data)
    _check_complete(ftp)
    if text and not text.endswith(b"\n"):  # the server believes that it has sent everything
        raise StorageUnavailable(f"cannot list {directory}", cause="the listing ends in the middle of a line")
    entries: list[tuple[str, _Facts]] = []
    for line in text.decode(ftp.encoding, "surrogateescape").split("\n"):
        words, space, name = line.rstrip("\r").partition(" ")
        if space:
            entries.append((name, _facts(words)))
        elif words:
            raise StorageUnavailable(f"cannot list {directory}", cause=f"the server lists {words!r}")
    return entries


def _facts(words: str) -> _Facts:
    pairs = (word.partition("=") for word in words.rstrip(";").split(";"))
    return {name.lower(): value for name, _, value in pairs}


def _send(ftp: Ftp, path: str, content: bytes) -> None:
    connection = ftp.transfercmd(f"STOR {path}")
    try:
        with connection as data:
            for start in range(0, len(content), _PIECE):
                data.sendall(memoryview(content)[start : start + _PIECE])
            _end(data)
    except OSError:
        ftp.raise_refusal()  # a server that is full may close the data connection
        raise
    ftp.voidresp()


def _download(ftp: Ftp, path: str, start: int, wanted: int) -> bytes:
    """At most `wanted` bytes from `start` on."""
    pieces: list[bytes] = []
    left = wanted
    with ftp.transfercmd(f"RETR {path}", rest=start or None) as data:
        while left and (piece := data.recv(min(left, _PIECE))):
            pieces.append(piece)
            left -= len(piece)
        # The end is asked for, too: a server that was cut off while it still sends complains.
        whole = bool(left) or not data.recv(1)
        if whole:
            _end(data)
    if whole:
        _check_complete(ftp)
    else:
        with contextlib.suppress(ftplib.error_temp, ftplib.error_perm):  # 426: we hung up, and meant it
            ftp.voidresp()
    return b"".join(pieces)


def _check_complete(ftp: Ftp) -> None:
    """Read what the server says after a transfer, which may have ended early: 221 is what it says when it goes away."""
    reply = ftp.voidresp()
    if reply[:3] not in _COMPLETE:
        raise ftplib.error_reply(f"a transfer ended with {reply}")  # noqa: S321 - an exception, no call


def _end(data: socket.socket) -> None:
    """Say goodbye on a data connection with TLS; whether the server answers does not matter, it tells by 226."""
    if isinstance(data, ssl.SSLSocket):
        with contextlib.suppress(OSError):
            data.unwrap()


def _discard(ftp: Ftp, path: str) -> None:
    """Remove a temporary file; one that stays is found by the sweep."""
    with contextlib.suppress(OSError, EOFError, ftplib.Error):
        ftp.delete(path)


def _is_file(facts: _Facts | None) -> bool:
    return facts is not None and facts.get("type", "").lower() == "file"


def _is_directory(facts: _Facts | None) -> bool:
    return facts is not None and facts.get("type", "").lower() in ("dir", "cdir")


def _size(name: str, facts: _Facts | None) -> int:
    size = (facts or {}).get("size", "")
    if not (size.isascii() and size.isdigit() and len(size) <= _DIGITS):
        raise StorageUnavailable(f"cannot examine {name}", cause="the server does not tell its size")
    return int(size)


def _modified_ns(facts: _Facts) -> int:
    """Nanoseconds since 1970, 0 for what is no time."""
    try:
        moment = datetime.strptime(facts.get("modify", "")[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return 0
    return ns_from_datetime(moment)


def _info(name: str, facts: _Facts) -> ObjectInfo:
    return ObjectInfo(name=name, size=_size(name, facts), modified_ns=_modified_ns(facts))


def open_ftp(url: str) -> FtpStorage:
    """What `ftp://[user@]host[:port]/path` and, with TLS, `ftps://…` mean; `/~/path` begins at the user's directory."""
    address = parse_address(url, credentials=where_logins_belong("FTP"))
    if address.path in ("", "/~"):
        raise InvalidRequest("the address names no directory", hint=f"write {address.scheme}://host/path")
    return FtpStorage(address, find_login(address, "FTP", os.environ))
