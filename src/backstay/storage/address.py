"""Addresses of remote stores: `scheme://[user@]host[:port]/path`, taken apart and told without secrets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from backstay.errors import InvalidRequest

_LAST_CONTROL: Final = 0x1F
_DELETE: Final = 0x7F


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a remote store is. `path` begins with `/`, does not end with one, and has no percent signs left."""

    scheme: str
    host: str
    port: int | None = None
    user: str | None = None
    path: str = ""

    def __str__(self) -> str:
        user = f"{quote(self.user, safe='')}@" if self.user else ""
        return f"{self.scheme}://{user}{self.place}{quote(self.path, safe='/~')}"

    @property
    def place(self) -> str:
        """`host` or `host:port`, IPv6 addresses in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"


def parse_address(url: str, *, credentials: str) -> Address:
    """The parts of an address. InvalidRequest, without an echo, for one that holds a password or makes no sense.

    `credentials` says where the password of this scheme belongs instead; it becomes the hint.
    """
    scheme = url.partition(":")[0].lower()
    form = f"write {scheme}://[user@]host[:port]/path"
    try:
        parts = urlsplit(url)
        port, host, password = parts.port, parts.hostname, parts.password
    except ValueError as error:
        raise InvalidRequest(f"this is no {scheme}: address", cause="its host or port makes no sense", hint=form) from (
            None if "@" in url else error  # the library's message quotes what may be a password
        )
    if password is not None:
        raise InvalidRequest(
            f"the {scheme}: address holds a password",
            cause="addresses are seen by other users, in process lists and logs",
            hint=f"leave it out of the address: {credentials}",
        )
    if not host or parts.query or parts.fragment or "?" in url or "#" in url:
        cause = "a ? or # belongs into a path only as %3F or %23" if host else "it names no host"
        raise InvalidRequest(f"this is no {scheme}: address", cause=cause, hint=form)
    user = unquote(parts.username) if parts.username else None
    return Address(scheme=scheme, host=host, port=port, user=user, path=_path(unquote(parts.path), form))


def _path(path: str, form: str) -> str:
    if any(ord(character) <= _LAST_CONTROL or ord(character) == _DELETE for character in path):
        raise InvalidRequest("the path of the address holds a control character", hint=form)
    parts = [part for part in path.split("/") if part]
    if any(part in (".", "..") for part in parts):
        raise InvalidRequest("the path of the address holds . or ..", hint="write where it leads")
    return "".join(f"/{part}" for part in parts)
