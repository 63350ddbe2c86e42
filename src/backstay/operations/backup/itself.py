"""A repository is left out of its own snapshots, and so is what is cached of it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from backstay.errors import InvalidRequest
from backstay.repository.repository import Repository
from backstay.storage.assembly import local_places


def patterns_without(repository: Repository, places: Sequence[bytes]) -> list[bytes]:
    """The patterns that leave a repository out, and its cache, when they lie in what is backed up.

    Raises InvalidRequest when what is backed up lies in it.
    """
    itself = [os.path.realpath(bytes(copy)) for copy in local_places(repository.backend)]
    real = [os.path.realpath(place) for place in places]
    if any((place + b"/").startswith(copy + b"/") for copy in itself for place in real):
        raise InvalidRequest(
            "a repository cannot be backed up into itself",
            cause="a path to back up lies in it",
            hint="copy it to another disk instead",
        )
    if repository.cache is not None:
        itself.append(os.path.realpath(bytes(repository.cache)))
    return [pattern for one in itself for pattern in _without(one, real)]


def _without(itself: bytes, places: Sequence[bytes]) -> list[bytes]:
    if not any((itself + b"/").startswith(place.rstrip(b"/") + b"/") for place in places):
        return []  # a pattern would be asked about every single file
    return [b"".join(b"\\" + bytes([c]) if c in b"*?[]\\!" else bytes([c]) for c in itself)]
