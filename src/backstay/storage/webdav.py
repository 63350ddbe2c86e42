"""Objects as files of a collection on a WebDAV server."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, TypeAlias

from backstay.core.clock import Clock, SystemClock
from backstay.errors import (
    BackstayError,
    InvalidRequest,
    ObjectExists,
    ObjectNotFound,
    StorageUnavailable,
)
from backstay.storage.address import Address, parse_address
from backstay.storage.backend import Buffer, Capabilities, ObjectInfo, StorageBackend
from backstay.storage.http_client import Answer, HttpClient
from backstay.storage.logins import Login, find_login, where_logins_belong
from backstay.storage.names import TEMPORARY, check_name, check_prefix, check_range
from backstay.storage.patience import REMOTE, Patience
from backstay.storage.sweeping import outlived
from backstay.storage.transfer import Turns, check_stored, flat, span, temporary_name, too_short
from backstay.storage.webdav_listing import Resource
from backstay.storage.webdav_locks import WebdavLocks
from backstay.storage.webdav_tree import ABSENT, MULTI, UPLOADS, WebdavTree, quoted

_Infos: TypeAlias = Iterator[ObjectInfo]  # inside the class `list` is the method

_OK: Final = 200
_CREATED: Final = 201
_NO_CONTENT: Final = 204
_PARTIAL: Final = 206
_FORBIDDEN_BY_SOME: Final = 403  # what some servers say of an upload into a collection that is not there
_NOT_FOUND: Final = 404
_THERE_ALREADY: Final = 405
_CONFLICT: Final = 409
_FAILED: Final = 412
_NO_SUCH_RANGE: Final = 416
_LOCKED: Final = 423
_STORED: Final = frozenset({_OK, _CREATED, _NO_CONTENT})  # what a PUT is answered with; its size is looked at
_MOVED: Final = frozenset({_CREATED, _NO_CONTENT})
_NO_PARENT: Final = frozenset({_FORBIDDEN_BY_SOME, _NOT_FOUND, _CONFLICT})

_LOCK_STEPS: Final = 100
_LOCK_STEP_S: Final = 0.05
_CLAIM: Final = f"{TEMPORARY}claim-"
_CLAIMS: Final = 64
_SYSTEM_CLOCK: Final = SystemClock()


class WebdavStorage(StorageBackend):
    """A collection. The first `store` makes it; one that was there and is not any more is StorageMissing."""

    def __init__(
        self,
        address: Address,
        login: Login | None = None,
        *,
        clock: Clock = _SYSTEM_CLOCK,
        patience: Patience = REMOTE,
    ) -> None:
        self._address = address
        self._root = address.path
        self._clock = clock
        origin = f"{'https' if address.scheme == 'webdavs' else 'http'}://{address.place}"
        self._origin = origin
        self._http = HttpClient(origin, login, clock=clock, patience=patience)
        self._turns = Turns()
        self._tree = WebdavTree(self._http, self._root, str(address))
        self._locks = WebdavLocks(self._http, clock)
        self._excludes: bool | None = None  # whether its locks are some; None: not tried

    @property
    def url(self) -> str:
        return str(self._address)

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override] # depends on the server, and is never assigned
        """Tries whether the server's locks exclude each other, once.

        `Overwrite: F` alone decides nothing: servers look whether there is something, and then move. To replace, they
        first remove what is there (RFC 4918, section 9.9.3).
        """
        return Capabilities(atomic_create=self._has_locks(f"cannot examine {self.url}"), atomic_replace=False)

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        check_name(name)
        title = f"cannot store {name}"
        temporary = f"{UPLOADS}/{temporary_name()}"
        try:
            self._upload(temporary, flat(data), title)  # here: a temporary name that no listing shows
            if overwrite:
                self._move(temporary, name, title, overwrite=True)
            else:
                self._publish(temporary, name, title)
            self._tree.seen = True
        except BaseException:
            self._discard(temporary)
            raise

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        check_name(name)
        check_range(start, length)
        if length == 0:
            return self._nothing(name, start, 0)
        last = "" if length is None else start + length - 1
        answer = self._http.request(
            "GET",
            self._tree.target(name),
            headers={"Range": f"bytes={start}-{last}"} if start or length is not None else {},
            most=None if length is None else start + length,  # enough of those that do not know ranges
        )
        if answer.status in ABSENT:
            raise self._tree.not_found(name)
        if answer.status == _NO_SUCH_RANGE:
            return self._nothing(name, start, length)
        self._check_kind(name, answer)
        self._tree.seen = True
        data = self._part(name, answer, start)
        if len(data) < (length or 0):
            raise too_short(name, start, length, start + len(data))
        return data if length is None else data[:length]

    def delete(self, name: str) -> None:
        check_name(name)
        title = f"cannot delete {name}"
        if self._tree.look(name, title) is None:  # looked at first: DELETE takes a collection with all that is in it
            return
        answer = self._patient("DELETE", self._tree.target(name))
        if answer.status not in (_NO_CONTENT, *ABSENT) and not self._is_deleted(name, title, answer):
            raise self._http.failure(title, answer)

    def list(self, prefix: str = "") -> _Infos:
        check_prefix(prefix)
        base, _, stem = prefix.rpartition("/")
        title = f"cannot list {self.url}/{prefix}"
        return (_info(name, resource, title) for name, resource in self._tree.files(base, stem, title))

    def stat(self, name: str) -> ObjectInfo:
        check_name(name)
        title = f"cannot examine {name}"
        resource = self._tree.look(name, title)
        if resource is None:
            raise ObjectNotFound(name)
        return _info(name, resource, title)

    def sweep_temporaries(self, older_than_s: float) -> int:
        """Remove what interrupted stores left behind, by age alone: their processes may be on other hosts."""
        removed = 0
        title = f"cannot clean up {self.url}"
        files = [(name, resource.modified_ns) for name, resource in self._tree.files(UPLOADS, "", title)]
        uploads = (file for file in files if not file[0].startswith(f"{UPLOADS}/{_CLAIM}"))
        for name in outlived(self, uploads, older_than_s):
            answer = self._patient("DELETE", self._tree.target(name))
            removed += answer.status == _NO_CONTENT or self._is_deleted(name, title, answer)
        return removed

    def close(self) -> None:
        self._http.close()

    # --- writing ---

    def _upload(self, temporary: str, data: bytes, title: str) -> None:
        answer = self._put(temporary, data)
        if answer.status in _NO_PARENT:
            self._make_collection(temporary.rpartition("/")[0], title)
            answer = self._put(temporary, data)
        if answer.status not in _STORED:
            raise self._http.failure(title, answer)
        check_stored(
            temporary, len(data), self._http.request("HEAD", self._tree.target(temporary)).number("Content-Length")
        )

    def _put(self, temporary: str, data: bytes) -> Answer:
        headers = {"Content-Type": "application/octet-stream"}
        return self._http.request("PUT", self._tree.target(temporary), headers=headers, body=data)

    def _publish(self, temporary: str, name: str, title: str) -> None:
        """Give the whole file its name unless that is taken: two steps, made one by a lock where there are locks."""
        if not self._has_locks(title):
            with self._turns.of(name):
                self._move_if_absent(temporary, name, title)
            return
        claim = f"{UPLOADS}/{_CLAIM}{hashlib.sha256(name.encode()).digest()[0] % _CLAIMS:02x}"
        with self._locks.held(self._tree.target(claim), title) as check:
            self._move_if_absent(temporary, name, title, check)

    def _move_if_absent(self, temporary: str, name: str, title: str, check: Callable[[], None] | None = None) -> None:
        if self._tree.look(name, title) is not None:  # asked for those that do not heed `Overwrite: F`
            raise ObjectExists(name)
        if check is not None:
            check()
        self._move(temporary, name, title, overwrite=False)

    def _move(self, temporary: str, name: str, title: str, *, overwrite: bool) -> None:
        headers = {"Destination": self._origin + self._tree.target(name), "Overwrite": "T" if overwrite else "F"}
        answer = self._patient("MOVE", self._tree.target(temporary), headers)
        if answer.status in _NO_PARENT:
            self._make_collection(name.rpartition("/")[0], title)
            answer = self._patient("MOVE", self._tree.target(temporary), headers)
        if answer.status == _FAILED and not overwrite:
            raise ObjectExists(name)
        if answer.status not in _MOVED and not self._is_moved(temporary, name, title, answer):
            raise self._http.failure(title, answer)

    def _is_moved(self, temporary: str, name: str, title: str, answer: Answer) -> bool:
        """Whether a 200 is told by a server that moved; login portals answer everything with one, and do nothing."""
        if answer.status != _OK:
            return False
        return self._tree.look(temporary, title) is None and self._tree.look(name, title) is not None

    def _is_deleted(self, name: str, title: str, answer: Answer) -> bool:
        """The same for what was deleted."""
        return answer.status == _OK and self._tree.look(name, title) is None

    def _has_locks(self, title: str) -> bool:
        if self._excludes is None:
            self._make_collection(UPLOADS, title)
            self._excludes = self._locks.work(self._tree.target(f"{UPLOADS}/{temporary_name()}"))
        return self._excludes

    def _make_collection(self, name: str, title: str) -> None:
        """Make it and what is missing above it; never the root again that was there before."""
        if self._tree.seen:
            self._tree.check_root()
        path = self._tree.path(name)
        missing: list[str] = []
        while path and not self._made(path, title, absent_above=True):
            missing.append(path)
            path = path.rpartition("/")[0]
        for path in reversed(missing):
            self._made(path, title, absent_above=False)

    def _made(self, path: str, title: str, *, absent_above: bool) -> bool:
        """Whether the collection is there now; False if what is above it is missing."""
        answer = self._patient("MKCOL", quoted(path) + "/")
        if answer.status in (_CREATED, _THERE_ALREADY):
            return True
        if absent_above and answer.status in (*ABSENT, _CONFLICT):
            return False
        if self._tree.ask(quoted(path) + "/", "0").status == MULTI:  # somebody else made it at the same time
            return True
        raise self._http.failure(title, answer)

    def _discard(self, temporary: str) -> None:
        """Remove a temporary file; one that stays is found by the sweep."""
        with suppress(BackstayError):
            self._http.request("DELETE", self._tree.target(temporary))

    def _patient(self, method: str, target: str, headers: dict[str, str] | None = None) -> Answer:
        """Some servers lock what they work on, and turn away who comes meanwhile; nothing was done then."""
        answer = self._http.request(method, target, headers=headers)
        for _ in range(_LOCK_STEPS):
            if answer.status != _LOCKED:
                break
            self._clock.sleep(_LOCK_STEP_S)
            answer = self._http.request(method, target, headers=headers)
        return answer

    # --- reading ---

    def _nothing(self, name: str, start: int, length: int | None) -> bytes:
        """The end of an object, if `start` is there; else the range is too long."""
        size = self.stat(name).size
        if span(name, start, length, size):
            raise StorageUnavailable(f"cannot read {name}", cause="the server denies a range that the object has")
        return b""

    def _check_kind(self, name: str, answer: Answer) -> None:
        """Only an object's bytes pass: no errors, no pages that show a collection or an error with a good status."""
        good = answer.status in (_OK, _PARTIAL)
        if not good or answer.headers.get("Content-Type", "").startswith("text/html"):
            title = f"cannot read {name}"
            resource = self._tree.look(name, title)
            if resource is None:
                raise ObjectNotFound(name)
            is_page = answer.status == _OK and answer.number("Content-Length") != resource.size
            if is_page or not good:
                raise self._http.failure(title, answer)

    def _part(self, name: str, answer: Answer, start: int) -> bytes:
        """What an answer has of the object from `start` on."""
        if answer.status == _PARTIAL:
            if not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                cause = "the server sent another range than it was asked for"
                raise StorageUnavailable(f"cannot read {name}", cause=cause)
            return answer.body
        if "Content-Length" not in answer.headers and "Transfer-Encoding" not in answer.headers:
            # What ends with the connection may have been cut.
            check_stored(name, self.stat(name).size, len(answer.body))
        if len(answer.body) < start:
            raise too_short(name, start, None, len(answer.body))
        return answer.body[start:]


def _info(name: str, resource: Resource, title: str) -> ObjectInfo:
    if resource.size is None:
        raise StorageUnavailable(title, cause=f"the server does not tell the size of {name}")
    return ObjectInfo(name=name, size=resource.size, modified_ns=resource.modified_ns)


def open_webdav(url: str) -> WebdavStorage:
    """What `webdav://[user@]host[:port]/path` (HTTP) and `webdavs://…` (HTTPS) mean."""
    address = parse_address(url, credentials=where_logins_belong("WEBDAV"))
    if not address.path:
        raise InvalidRequest("the address names no collection", hint=f"write {address.scheme}://host/path")
    return WebdavStorage(address, find_login(address, "WEBDAV", os.environ))
