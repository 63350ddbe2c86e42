"""From an address to a backend."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from backstay.core.environment import expanded
from backstay.errors import InvalidRequest
from backstay.storage.backend import StorageBackend
from backstay.storage.local import LocalStorage
from backstay.storage.memory import open_memory

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


def open_backend(url: str, *, create: bool = True) -> StorageBackend:
    """The backend of an address: a path, `file:`, `memory:` or a scheme that an installed driver offers.

    With `create` false a directory that does not exist stays so: an address that must be a repository already
    may be an unmounted disk. InvalidRequest for an address that nobody understands; it is not echoed, because
    it may hold a password.
    """
    match = _SCHEME.match(url)
    scheme = match[1].lower() if match else ""
    if not scheme:
        return _open_path(url, create=create)
    if scheme == "file":
        return _open_path(_path_of(url), create=create)
    if scheme == "memory":
        return open_memory(url)
    from backstay.storage.drivers import open_with_driver

    return open_with_driver(scheme, url)


def has_scheme(url: str) -> bool:
    """Whether an address is no plain path."""
    return _SCHEME.match(url) is not None


def local_path(url: str) -> Path | None:
    """Where an address lies on the disks of this machine; None for one elsewhere. Raises InvalidRequest."""
    if url.startswith("file:"):
        return Path(_path_of(url)).absolute()
    return None if has_scheme(url) else expanded(Path(url)).absolute()


def directory(address: str) -> Path:
    """The directory that a path or a `file:` address names. Raises InvalidRequest for any other address."""
    place = local_path(address) if address else None
    if place is None:
        raise InvalidRequest(
            "this is no directory",
            cause="only a path or file: names one" if address else "the text is empty",
            hint="mount what lies elsewhere; of a name with a colon write ./NAME",
        )
    return place


def _open_path(text: str, *, create: bool) -> LocalStorage:
    if not text or "\0" in text:
        raise InvalidRequest("the address of the repository is empty or holds a null character")
    return LocalStorage(expanded(Path(text)), create=create)


def _path_of(url: str) -> str:
    """The path of `file:relative`, `file:/absolute` or `file:///absolute`, percent signs resolved."""
    rest = url.partition(":")[2]
    if not rest.startswith("//"):
        return unquote(rest)
    host, slash, path = rest[2:].partition("/")
    if host not in ("", "localhost"):
        raise InvalidRequest(
            f"file: cannot reach the host {host}", hint="write file:///absolute/path, or mount the share first"
        )
    return unquote(slash + path)
