"""What a backend can really do, tried out."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Final

from backstay.errors import ObjectExists, StorageUnavailable, StorageUnfit
from backstay.storage.backend import Capabilities, StorageBackend

_FIRST: Final = b"first writer wins: 0123456789abcdef"
_SECOND: Final = b"a second writer must be refused, always"


def probe_capabilities(backend: StorageBackend, *, rng: random.Random | None = None) -> Capabilities:
    """What the store does, tried out with one small object that is removed afterwards.

    A driver's own "no" stays "no": one probe cannot prove that races are decided. A store that gives back other
    bytes or does not list what it holds is unusable: StorageUnavailable. So is one that cannot be reached or refuses.
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
    except StorageUnfit:
        return False
    except StorageUnavailable as error:
        if not error.transient:  # a refusal says nothing of ranges
            raise
        backend.retrieve(name)  # raises when it is the store that is out of reach, and not the range
        return False


def _unusable(backend: StorageBackend, cause: str) -> StorageUnavailable:
    return StorageUnavailable(f"{backend.url} cannot hold a repository", cause=cause, hint="use another store")
