"""What lies where on a WebDAV server; that something is absent is told only when its store is seen to be there."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeAlias
from urllib.parse import quote

from backstay.errors import BackstayError, ObjectNotFound, StorageMissing, StorageUnavailable
from backstay.storage.http_client import Answer, HttpClient
from backstay.storage.names import TEMPORARY, is_component
from backstay.storage.webdav_listing import QUESTION, Resource, read_listing

_Found: TypeAlias = list[tuple[str, Resource]]

MULTI: Final = 207
_NOT_FOUND: Final = 404
_GONE: Final = 410
ABSENT: Final = frozenset({_NOT_FOUND, _GONE})
# Where objects are until they are whole, and what is locked in their place. Not beside the objects: servers break off a
# listing when one of its entries goes away meanwhile.
UPLOADS: Final = f"{TEMPORARY}uploads"
_PARALLEL_LISTINGS: Final = 8


class WebdavTree:
    """The collection of a store, and all below it."""

    def __init__(self, http: HttpClient, root: str, url: str) -> None:
        self._http, self._root, self._url = http, root, url
        self.seen = False  # whether the collection has been there

    def look(self, name: str, title: str) -> Resource | None:
        """The file of this name; None on proof that there is none."""
        answer = self.ask(self.target(name), "0")
        if answer.status in ABSENT:
            self.check_root()
            return None
        if answer.status != MULTI:
            raise self._http.failure(title, answer)
        for resource in read_listing(answer.body):
            if resource.path == self.path(name):
                return None if resource.collection else resource
        raise _foreign(title)

    def files(self, base: str, stem: str, title: str) -> _Found:
        """All files below `base` that begin with `stem` there; a collection that vanishes is an error."""
        found: _Found = []
        collections = [(base, stem)]
        first = True
        with ThreadPoolExecutor(_PARALLEL_LISTINGS) as pool:
            while collections:
                names, stems = zip(*collections, strict=True)
                read = partial(self._children, title=title, may_be_absent=first)
                entries = [entry for level in pool.map(read, names, stems) for entry in level]
                collections = [(name, "") for name, resource in entries if resource.collection]
                found += [(name, resource) for name, resource in entries if not resource.collection]
                first = False
        return found

    def _children(self, name: str, stem: str, *, title: str, may_be_absent: bool) -> _Found:
        answer = self.ask(self.target(name) + "/", "1")
        if answer.status in ABSENT and may_be_absent:
            self.check_root()
            return []
        if answer.status != MULTI:
            raise self._http.failure(title, answer)
        own = self.path(name) or "/"
        entries: _Found = []
        whole = False
        for resource in read_listing(answer.body):
            parent, _, leaf = resource.path.rpartition("/")
            if resource.path == own:
                if not resource.collection:
                    return self._no_collection(name, title)
                whole = True
            elif (parent or "/") != own:
                raise _foreign(title)
            elif leaf.startswith(stem) and (is_component(leaf) or name == UPLOADS):
                entries.append((f"{name}/{leaf}" if name else leaf, resource))
        if not whole:
            raise _foreign(title)
        return entries

    def _no_collection(self, name: str, title: str) -> _Found:
        if not name:
            raise StorageMissing(title, cause="it is a file", hint="check the address")
        return []

    def ask(self, target: str, depth: str) -> Answer:
        """What the server says of a place, and of what is in it where `depth` is 1."""
        headers = {"Depth": depth, "Content-Type": "application/xml"}
        return self._http.request("PROPFIND", target, headers=headers, body=QUESTION)

    def not_found(self, name: str) -> BackstayError:
        """The proof that an object is absent: its store is there."""
        self.check_root()
        return ObjectNotFound(name)

    def check_root(self) -> None:
        """Raises StorageMissing unless the collection of the store is there, StorageUnavailable."""
        answer = self.ask(quoted(self._root) + "/", "0")
        title = f"no collection {self._url}"
        if answer.status in ABSENT:
            raise StorageMissing(
                title, cause=f"the server answered with HTTP {answer.status}", hint="check the address"
            )
        if answer.status != MULTI:
            raise self._http.failure(title, answer)
        if not any(
            resource.path == (self._root or "/") and resource.collection for resource in read_listing(answer.body)
        ):
            raise StorageMissing(title, cause="something else is there", hint="check the address")
        self.seen = True

    def path(self, name: str) -> str:
        """Where an object or a collection lies on the server."""
        return f"{self._root}/{name}" if name else self._root

    def target(self, name: str) -> str:
        """The same as requests name it."""
        return quoted(self.path(name))


def quoted(path: str) -> str:
    return quote(path, safe="/~")


def _foreign(title: str) -> BackstayError:
    return StorageUnavailable(
        title,
        cause="the server answered for another place than it was asked about",
        hint="check the address, and the paths that a proxy before the server rewrites",
    )
