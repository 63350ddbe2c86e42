"""A repository is left out of its own snapshots."""

from __future__ import annotations

import os
from collections.abc import Sequence

from backstay.errors import InvalidRequest
from backstay.storage.assembly import local_places
from backstay.storage.backend import StorageBackend


def patterns_without(backend: StorageBackend, places: Sequence[bytes]) -> list[bytes]:
    """The patterns that leave a repository out when it lies in what is backed up.

    Raises InvalidRequest when what is backed up lies in it.
    """
    return [pattern for copy in local_places(backend) for pattern in _without(bytes(copy), places)]


def _without(repository: bytes, places: Sequence[bytes]) -> list[bytes]:
    itself = os.path.realpath(repository)
    if any((os.path.realpath(place) + b"/").startswith(itself + b"/") for place in places):
        raise InvalidRequest(
            "a repository cannot be backed up into itself",
            cause="a path to back up lies in it",
            hint="copy it to another disk instead",
        )
    if not any((itself + b"/").startswith(os.path.realpath(place).rstrip(b"/") + b"/") for place in places):
        return []  # a pattern would be asked about every single file
    return [b"".join(b"\\" + bytes([c]) if c in b"*?[]\\!" else bytes([c]) for c in itself)]
