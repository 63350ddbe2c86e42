"""Storage that is not of this machine: drivers of our own and those that others install, loaded when asked for.

A module of its own because looking for what is installed takes a moment, which local repositories need not wait for.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from backstay.errors import InvalidRequest
from backstay.storage.backend import StorageBackend

GROUP: Final = "backstay.storage"  # entry points: name = scheme, object = callable(url) -> StorageBackend
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


def open_with_driver(scheme: str, url: str) -> StorageBackend:
    """The backend that the driver of a scheme makes of an address. Raises InvalidRequest."""
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
