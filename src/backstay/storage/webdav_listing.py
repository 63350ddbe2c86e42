"""The answers of WebDAV servers about collections: XML, read without trusting it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import unquote, urlsplit
from xml.parsers import expat

from backstay.core.clock import ns_from_datetime
from backstay.errors import StorageUnavailable

QUESTION: Final = (
    b'<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop>'
    b"<resourcetype/><getcontentlength/><getlastmodified/></prop></propfind>"
)
_STATUS: Final = re.compile(r"HTTP/\d(?:\.\d)? (\d{3})")
_OK: Final = 200
_DEEPEST: Final = 32
_TEXTS: Final = frozenset({"DAV: href", "DAV: status", "DAV: getcontentlength", "DAV: getlastmodified"})


@dataclass(slots=True)
class Resource:
    """One entry of a listing. `path` has no percent signs left and no slash at its end."""

    path: str = ""
    collection: bool = False
    size: int | None = None
    modified_ns: int = 0


class _Refused(Exception):
    """The answer is none; the text says why."""


def read_listing(body: bytes) -> Iterator[Resource]:
    """The resources of a 207 answer. StorageUnavailable if it is anything but a whole, good listing."""
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = reader.doctype
    try:
        parser.Parse(body, True)
        reader.finish()
    except expat.ExpatError as error:
        # What servers do that notice in the middle that something has gone: an error's text, or nothing, follows.
        cause = f"the server broke it off ({error})"
        raise StorageUnavailable("the listing is incomplete", cause=cause, hint="try again") from error
    except _Refused as error:
        raise StorageUnavailable(
            "the server's listing makes no sense", cause=str(error), hint="check that the address is one of WebDAV"
        ) from error
    return iter(reader.found)


class _Reader:
    """Collects resources while expat goes through the text."""

    def __init__(self) -> None:
        self.found: list[Resource] = []
        self._way: list[str] = []  # elements that are open
        self._text: list[str] = []
        self._resource = Resource()
        self._properties = Resource()  # of one propstat, which counts only with a good status
        self._status: int | None = None

    def doctype(self, *_: object) -> None:
        raise _Refused("it declares a document type")

    def start(self, name: str, _: dict[str, str]) -> None:
        if not self._way and name != "DAV: multistatus":
            raise _Refused("it is no multistatus answer")
        if len(self._way) >= _DEEPEST:
            raise _Refused("its elements are nested too deep")
        if name == "DAV: response":
            self._resource, self._status = Resource(), None
        elif name == "DAV: propstat":
            self._properties, self._status = Resource(), None
        elif name == "DAV: collection" and self._way[-1] == "DAV: resourcetype":
            self._properties.collection = True
        self._way.append(name)
        self._text.clear()

    def text(self, text: str) -> None:
        if self._way[-1] in _TEXTS:
            self._text.append(text)

    def end(self, name: str) -> None:
        self._way.pop()
        text = "".join(self._text).strip()
        self._text.clear()
        if name == "DAV: href" and self._way[-1] == "DAV: response":
            self._resource.path = _path(text)
        elif name == "DAV: status":
            self._status = _status(text)
        elif name == "DAV: getcontentlength" and text.isascii() and text.isdigit():
            self._properties.size = int(text)
        elif name == "DAV: getlastmodified":
            self._properties.modified_ns = _time(text)
        elif name == "DAV: propstat":
            self._take_properties()
        elif name == "DAV: response":
            self._take_resource()

    def finish(self) -> None:
        if not self.found:
            raise _Refused("it names nothing, not even what was asked for")

    def _take_properties(self) -> None:
        if self._status == _OK:
            more, resource = self._properties, self._resource
            resource.collection |= more.collection
            resource.size = more.size if resource.size is None else resource.size
            resource.modified_ns = resource.modified_ns or more.modified_ns
        elif self._status is None or self._status != 404:  # 404: there is no such property
            raise _Refused(f"it keeps the properties of {self._resource.path!r} back (HTTP {self._status})")
        self._status = None

    def _take_resource(self) -> None:
        if self._status is not None and self._status != _OK:
            raise _Refused(f"it has an error in place of {self._resource.path!r} (HTTP {self._status})")
        if not self._resource.path.startswith("/"):
            raise _Refused("it has an entry without a path")
        self.found.append(self._resource)


def _path(href: str) -> str:
    return "/" + unquote(urlsplit(href).path).strip("/")


def _status(text: str) -> int:
    match = _STATUS.match(text)
    if match is None:
        raise _Refused(f"{text!r} is no status")
    return int(match[1])


def _time(text: str) -> int:
    """Nanoseconds since 1970, 0 for what is no time: it is told, but nothing depends on it."""
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return 0
    return ns_from_datetime(moment) if moment.tzinfo else 0
