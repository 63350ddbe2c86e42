"""From an address to a backend, and from a backend to what it can really do."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from backstay.errors import InvalidRequest, ObjectExists, StorageUnavailable
from backstay.storage.backend import Capabilities, StorageBackend
from backstay.storage.local import LocalStorage
from backstay.storage.memory import open_memory

GROUP: Final = "backstay.storage"  # entry points: name = scheme, object = callable(url) -> StorageBackend
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
# Scheme of each driver that comes with the program, and where it is: loaded only when an address asks for it.
_BUILT_IN: Final[dict[str, str]] = {
    "s3": "backstay.storage.object_store:open_s3",
    "az": "backstay.storage.object_store:open_az",
    "gs": "backstay.storage.object_store:open_gs",
    "ftp": "backstay.storage.ftp:open_ftp",
    "ftps": "backstay.storage.ftp:open_ftp",
    "ipfs": "backstay.storage.ipfs:open_ipfs",
    "sftp": "backstay.storage.sftp:open_sftp",
    "webdav": "backstay.storage.webdav:open_webdav",
    "webdavs": "backstay.storage.webdav:open_webdav",
}
# What some of them need besides the program: the name of an extra.
_EXTRAS: Final = {"ipfs": "ipfs", "sftp": "sftp", "webdav": "webdav", "webdavs": "webdav"}
_HERE: Final = ("file", "memory")


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
    return _open_with_driver(scheme, url)


def has_scheme(url: str) -> bool:
    """Whether an address is no plain path."""
    return _SCHEME.match(url) is not None


def _open_path(text: str, *, create: bool) -> LocalStorage:
    if not text or "\0" in text:
        raise InvalidRequest("the address of the repository is empty or holds a null character")
    try:
        return LocalStorage(Path(text).expanduser(), create=create)
    except RuntimeError as error:  # what expanduser raises for an unknown user
        raise InvalidRequest(f"cannot resolve {text}", cause=str(error), hint="write the whole path") from error


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


def _open_with_driver(scheme: str, url: str) -> StorageBackend:
    drivers = {name: EntryPoint(name, place, GROUP) for name, place in _BUILT_IN.items()}
    drivers |= {point.name: point for point in entry_points(group=GROUP)}
    if scheme not in drivers:
        raise _unknown(sorted({*_HERE, *drivers}), scheme)
    backend = _load(scheme, drivers[scheme])(url)
    if not isinstance(backend, StorageBackend):
        raise InvalidRequest(f"the driver for {scheme}: is broken", cause=f"it gave a {type(backend).__name__}")
    return backend


def _load(scheme: str, point: EntryPoint) -> Callable[[str], object]:
    try:
        driver: object = point.load()
    except (ImportError, AttributeError) as error:
        extra = _EXTRAS.get(scheme) if point.value == _BUILT_IN.get(scheme) else None
        hint = f'install what it needs: pip install "backstay[{extra}]"' if extra else "install what it needs"
        raise InvalidRequest(f"the driver for {scheme}: cannot be loaded", cause=str(error), hint=hint) from error
    if not callable(driver):
        raise InvalidRequest(f"the driver for {scheme}: is broken", cause="it cannot be called")
    return driver


def _unknown(known: list[str], scheme: str) -> InvalidRequest:
    names = ", ".join(f"{name}:" for name in known)
    return InvalidRequest(
        f"cannot open {scheme}: addresses",
        cause="no such scheme",
        hint=f"known are: a path, {names}; for a path with a colon write ./{scheme}:…",
    )


_FIRST: Final = b"first writer wins: 0123456789abcdef"
_SECOND: Final = b"a second writer must be refused, always"


def probe_capabilities(backend: StorageBackend, *, rng: random.Random | None = None) -> Capabilities:
    """What the store does, tried out with one small object that is removed afterwards.

    A driver's own "no" stays "no": one probe cannot prove that races are decided. A store that gives back other
    bytes or does not list what it holds is unusable: StorageUnavailable.
    """
    name = f"probe/{(rng or random.SystemRandom()).getrandbits(128):032x}"
    declared = backend.capabilities
    backend.store(name, _FIRST)
    try:
        refused = _refuses_second(backend, name)
        kept = backend.retrieve(name)
        if kept not in (_FIRST, _SECOND):
            raise _unusable(backend, "it gives back other bytes than were stored")
        if not any(info.name == name and info.size == len(kept) for info in backend.list("probe/")):
            raise _unusable(backend, "its listing lacks an object that was just stored")
        return replace(
            declared,
            atomic_create=declared.atomic_create and refused and kept == _FIRST,
            range_reads=declared.range_reads and _reads_ranges(backend, name, kept),
            checksums=backend.refuses_damage(f"{name}-damaged"),
        )
    finally:
        backend.delete(name)


def _refuses_second(backend: StorageBackend, name: str) -> bool:
    try:
        backend.store(name, _SECOND)
    except ObjectExists:
        return True
    return False


def _reads_ranges(backend: StorageBackend, name: str, kept: bytes) -> bool:
    try:
        return backend.retrieve(name, start=7, length=11) == kept[7:18]
    except StorageUnavailable:  # the driver noticed that the answer had another length
        return False


def _unusable(backend: StorageBackend, cause: str) -> StorageUnavailable:
    return StorageUnavailable(f"{backend.url} cannot hold a repository", cause=cause, hint="use another store")
