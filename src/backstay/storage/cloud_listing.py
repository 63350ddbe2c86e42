"""Listings that are known to be whole.

obstore takes any XML for a listing, also a web page that a proxy sends in its place: the page has no objects in it and
names no continuation, so the listing seems to end there. Nothing in the answer tells, so the end is asked for again in
a way that must show an object known to be there.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import obstore

from backstay.errors import StorageUnavailable
from backstay.storage.cloud_calls import heard
from backstay.storage.cloud_clients import CloudStore

if TYPE_CHECKING:
    from obstore import ObjectMeta

PAGE: Final = 1000  # what the stores give at once
_SIGNS: Final[list[str]] = sorted({*string.ascii_letters, *string.digits, *"-_"})  # no dot: "." alone is no name
_TRIES: Final = 3  # as often a directory that is shown from above must have had nothing


_Sign: TypeAlias = Literal["none", "directory", "object"]


class CloudListing:
    """What lies in a directory of a bucket; paths are whole keys.

    `is_there` says whether a key exists, `witness` names one that was seen, if any.
    """

    def __init__(
        self, client: CloudStore, root: str, *, is_there: Callable[[str], bool], witness: Callable[[], str | None]
    ) -> None:
        self._client, self._root = client, root
        self._is_there, self._witness = is_there, witness

    def entries(self, directory: str) -> Iterator[ObjectMeta]:
        """Every object below, page by page, and then proof that there are no more. Raises StorageUnavailable."""
        sign: _Sign = "none"
        for _ in range(_TRIES):
            last = ""
            for page in self._pages(directory):
                last = max([last, *(meta["path"] for meta in page)])
                yield from page
            if last:
                yield from self._rest(directory, last)
                return
            sign = self._sign_of(directory)
            if sign == "none":
                return
        if sign == "object":
            raise _contradiction(directory)

    def _rest(self, directory: str, last: str) -> Iterator[ObjectMeta]:
        """What a listing that begins just before the last key shows behind it: nothing, if the end was the end."""
        while True:
            found = [meta for page in self._pages(directory, offset=_just_before(last)) for meta in page]
            if all(meta["path"] != last for meta in found) and self._is_there(last):
                raise _contradiction(directory)
            more = [meta for meta in found if meta["path"] > last]
            yield from more
            if not more:
                return
            last = max(meta["path"] for meta in more)

    def _pages(self, directory: str, *, offset: str | None = None) -> Iterator[Sequence[ObjectMeta]]:
        pages = iter(obstore.list(self._client, directory or None, offset=offset, chunk_size=PAGE))
        while (page := heard(lambda: next(pages, None))) is not None:
            yield page

    def _sign_of(self, directory: str) -> _Sign:
        """What speaks against it that a directory has nothing: the one above it shows it, or an object is there.

        Then it is asked again. Some servers keep showing a directory for a while after its last object was deleted.
        """
        while directory != self._root:
            above = directory.rpartition("/")[0]
            shown = heard(partial(obstore.list_with_delimiter, self._client, above or None))
            if shown["common_prefixes"] or shown["objects"]:
                return "directory" if directory in (path.rstrip("/") for path in shown["common_prefixes"]) else "none"
            directory = above
        witness = self._witness()
        return "object" if witness is not None and self._is_there(witness) else "none"


def _just_before(key: str) -> str | None:
    """A key that sorts before this one, with few between, in the same directory: some servers need that."""
    lower = [sign for sign in _SIGNS if sign < key[-1]]
    if lower:
        return key[:-1] + lower[-1]
    shorter: str = key[:-1].rstrip("/")
    return shorter or None


def _contradiction(directory: str) -> StorageUnavailable:
    return StorageUnavailable(
        f"the listing of {directory or 'the bucket'} is not complete",
        cause="it lacks objects that are there",
        hint="something between here and the store may answer in its place; try again",
    )
