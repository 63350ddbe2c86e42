"""Objects as files in the mutable file system (MFS) of an IPFS node, by Kubo's RPC interface.

What is in MFS is never collected by the node, so that nothing needs to be pinned.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import replace as replaced
from functools import partial
from typing import Final, TypeAlias, TypeVar
from urllib.parse import urlencode

import msgspec

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
from backstay.storage.http_client import Answer, HttpClient
from backstay.storage.logins import Login, find_login, where_logins_belong
from backstay.storage.names import TEMPORARY, check_name, check_prefix, check_range, is_component, is_temporary
from backstay.storage.patience import REMOTE, Patience
from backstay.storage.sweeping import outlived
from backstay.storage.transfer import Turns, check_stored, flat, span, temporary_name, too_short

T = TypeVar("T")
_Argument: TypeAlias = str | list[str]
_Infos: TypeAlias = Iterator[ObjectInfo]  # inside the class `list` is the method

_PORT: Final = 5001
_OK: Final = 200
_FAILED: Final = 500  # every error of a command
_DIRECTORY: Final = 1  # as a listing says it
_PARALLEL: Final = 8
_NO_ANSWER: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)  # of bytes that may be anything
_BOUNDARY: Final = "backstay-7d1f6f0c3e5b4a29"
_SYSTEM_CLOCK: Final = SystemClock()


class _Error(msgspec.Struct):
    message: str = msgspec.field(name="Message")


class _Stat(msgspec.Struct):
    type: str = msgspec.field(name="Type")
    size: int = msgspec.field(name="Size")
    seconds: int = msgspec.field(name="Mtime", default=0)
    nanoseconds: int = msgspec.field(name="MtimeNsecs", default=0)


class _Entry(msgspec.Struct):
    name: str = msgspec.field(name="Name")
    type: int = msgspec.field(name="Type")


class _Listing(msgspec.Struct):
    entries: list[_Entry] | None = msgspec.field(name="Entries", default=None)


@dataclass(frozen=True, slots=True)
class _File:
    size: int
    modified_ns: int
    directory: bool


class IpfsStorage(StorageBackend):
    """A directory of MFS. The node's `mv` removes what it replaces first, and never refuses to: nothing is atomic.

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
        self._address = replaced(address, port=address.port or _PORT)
        self._root = address.path
        self._clock = clock
        self._http = HttpClient(f"http://{self._address.place}", login, clock=clock, patience=patience)
        self._turns = Turns()
        self._seen = False  # whether the directory has been there

    @property
    def url(self) -> str:
        return str(self._address)

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        check_name(name)
        title = f"cannot store {name}"
        final = self._path(name)
        temporary = f"{final.rpartition('/')[0]}/{temporary_name()}"
        content = flat(data)
        if self._seen:
            self._check_root()  # `parents` would make it again
        try:
            self._write(temporary, content, title)  # here: a temporary file that no listing shows
            at = self._clock.now_ns()
            self._call("touch", title, arg=temporary, mtime=str(at // 10**9), **{"mtime-nsecs": str(at % 10**9)})
            written = self._stat(temporary, title)
            check_stored(name, len(content), written.size if written else None)
            with self._turns.of(name):
                there = self._stat(final, title)
                if there is not None and there.directory:  # the node would move the file into it
                    raise InvalidRequest(title, cause="a directory has this name", hint="choose another name")
                if there is not None and not overwrite:
                    raise ObjectExists(name)
                self._call("mv", title, arg=[temporary, final])
            self._seen = True
        except BaseException:
            with suppress(BackstayError):
                self._post("rm", arg=temporary)
            raise

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        check_name(name)
        check_range(start, length)
        wanted = span(name, start, length, self.stat(name).size)
        if not wanted:
            return b""
        answer = self._post("read", arg=self._path(name), offset=str(start), count=str(wanted))
        if answer.status != _OK:
            raise self._failure(f"cannot read {name}", answer)
        if len(answer.body) != wanted:
            raise too_short(name, start, length, start + len(answer.body))
        return answer.body

    def delete(self, name: str) -> None:
        check_name(name)
        title = f"cannot delete {name}"
        found = self._find(name, title)
        if found is None:
            return
        answer = self._post("rm", arg=self._path(name))
        if answer.status != _OK and self._find(name, title) is not None:
            raise self._failure(title, answer)

    def list(self, prefix: str = "") -> _Infos:
        check_prefix(prefix)
        base, _, stem = prefix.rpartition("/")
        files = self._files(base, stem, f"cannot list {self.url}/{prefix}")
        return (info for info in files if is_component(info.name.rpartition("/")[2]))

    def stat(self, name: str) -> ObjectInfo:
        check_name(name)
        found = self._find(name, f"cannot examine {name}")
        if found is None:
            raise ObjectNotFound(name)
        return ObjectInfo(name=name, size=found.size, modified_ns=found.modified_ns)

    def sweep_temporaries(self, older_than_s: float) -> int:
        """Remove what interrupted stores left behind, by age alone: their processes may be on other hosts."""
        removed = 0
        files = [(info.name, info.modified_ns) for info in self._files("", "", f"cannot clean up {self.url}")]
        for name in outlived(self, (file for file in files if is_temporary(file[0])), older_than_s):
            removed += self._post("rm", arg=self._path(name)).status == _OK
        return removed

    def close(self) -> None:
        self._http.close()

    # --- files ---

    def _write(self, path: str, content: bytes, title: str) -> None:
        head = (
            f"--{_BOUNDARY}\r\n"
            'Content-Disposition: form-data; name="data"; filename="data"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = b"".join((head.encode(), content, f"\r\n--{_BOUNDARY}--\r\n".encode()))
        answer = self._post("write", body, arg=path, create="true", truncate="true", parents="true", flush="true")
        if answer.status != _OK:
            raise self._failure(title, answer)

    def _find(self, name: str, title: str) -> _File | None:
        """The file of this name; None on proof that there is none: the root is there."""
        found = self._stat(self._path(name), title)
        if found is None:
            self._check_root()
            return None
        self._seen = True
        return None if found.directory else found

    def _stat(self, path: str, title: str) -> _File | None:
        answer = self._post("stat", arg=path)
        if answer.status == _FAILED and _is_absent(answer):
            return None
        found = self._decoded(answer, _Stat, title)
        if found.type not in ("file", "directory"):
            raise StorageUnavailable(title, cause=f"{path} is a {found.type}")
        return _File(found.size, found.seconds * 10**9 + found.nanoseconds, found.type == "directory")

    def _files(self, base: str, stem: str, title: str) -> Iterator[ObjectInfo]:
        """All files below `base` that begin with `stem` there; a directory that vanishes is an error."""
        start = self._stat(self._path(base) if base else self._root, title)
        if start is None or not start.directory:
            self._check_root()
            return
        directories = [(base, stem)]
        with ThreadPoolExecutor(_PARALLEL) as pool:
            while directories:
                directory, stem = directories.pop()
                path = self._path(directory) if directory else self._root
                listing = self._decoded(self._post("ls", arg=path, long="true"), _Listing, title)
                names: list[str] = []
                for entry in listing.entries or []:
                    name = f"{directory}/{entry.name}" if directory else entry.name
                    if not entry.name.startswith(stem) or not _is_ours(entry.name):
                        continue
                    if entry.type == _DIRECTORY:
                        directories.append((name, ""))
                    else:
                        names.append(name)
                # Listings tell no times; one that has gone since is left out.
                for name, found in zip(names, pool.map(partial(self._find, title=title), names), strict=True):
                    if found is not None:
                        yield ObjectInfo(name=name, size=found.size, modified_ns=found.modified_ns)

    def _check_root(self) -> None:
        title = f"no directory {self.url}"
        found = self._stat(self._root, title)
        if found is None or not found.directory:
            raise StorageMissing(title, cause="the node has none of this name", hint="check the address")
        self._seen = True

    def clock_ns(self) -> int | None:
        """By the head of an answer: the times of objects are those that this program gave them."""
        told = self._post("stat", arg="/").moment("Date")
        return None if told is None else ns_from_datetime(told)

    # --- calls ---

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _post(self, command: str, body: bytes | None = None, **arguments: _Argument) -> Answer:
        headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"} if body is not None else {}
        target = f"/api/v0/files/{command}?{urlencode(arguments, doseq=True)}"
        return self._http.request("POST", target, headers=headers, body=body)

    def _call(self, command: str, title: str, **arguments: _Argument) -> None:
        answer = self._post(command, None, **arguments)
        if answer.status != _OK:
            raise self._failure(title, answer)

    def _decoded(self, answer: Answer, kind: type[T], title: str) -> T:
        if answer.status != _OK:
            raise self._failure(title, answer)
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except _NO_ANSWER as error:
            raise StorageUnavailable(
                title, cause="the answer is none of Kubo's", hint="check that the address is that of its RPC interface"
            ) from error

    def _failure(self, title: str, answer: Answer) -> BackstayError:
        message = _message(answer)
        if answer.status == _FAILED and message:
            return StorageUnavailable(title, cause=f"the node says: {message}", hint="see the node's log")
        return self._http.failure(title, answer)


def _message(answer: Answer) -> str:
    with suppress(*_NO_ANSWER):
        return msgspec.json.decode(answer.body, type=_Error).message
    return ""


def _is_absent(answer: Answer) -> bool:
    message = _message(answer)
    # The second one: the way leads through a file.
    return message == "file does not exist" or message.endswith("is not a directory")


def _is_ours(leaf: str) -> bool:
    return is_component(leaf) or leaf.startswith(TEMPORARY)


def open_ipfs(url: str) -> IpfsStorage:
    """What `ipfs://[user@]host[:port]/path` means: the RPC interface of a node, and a directory of its MFS."""
    address = parse_address(url, credentials=where_logins_belong("IPFS"))
    if not address.path:
        raise InvalidRequest("the address names no directory", hint="write ipfs://host:port/path")
    return IpfsStorage(address, find_login(address, "IPFS", os.environ))
