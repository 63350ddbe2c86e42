"""A repository is left out of its own snapshots, and so is what is cached of it and of others."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress

from backstay.core.environment import own_cache_directory
from backstay.errors import InvalidRequest
from backstay.repository.repository import Repository
from backstay.storage.assembly import local_places


def patterns_without(repository: Repository, places: Sequence[bytes], environ: Mapping[str, str]) -> list[bytes]:
    """The patterns that leave a repository out, and what is cached, when they lie in what is backed up.

    There are as few as can be: each is asked about every single file. Raises InvalidRequest when what is backed up
    lies in the repository.
    """
    itself = [os.path.realpath(bytes(copy)) for copy in local_places(repository.backend)]
    real = [os.path.realpath(place) for place in places]
    if any(_lies_in(place, copy) for copy in itself for place in real):
        raise InvalidRequest(
            "a repository cannot be backed up into itself",
            cause="a path to back up lies in it",
            hint="copy it to another disk instead",
        )
    if repository.cache is not None:
        itself.append(os.path.realpath(bytes(repository.cache)))
    with suppress(InvalidRequest):  # who has no home has no cache there
        itself.append(os.path.realpath(bytes(own_cache_directory(environ))))
    left_out = [one for one in dict.fromkeys(itself) if any(_lies_in(one, place) for place in real)]
    closed = [one for one in left_out if not any(_lies_in(place, one) for place in real)]
    return [_pattern(one) for one in left_out if not any(one != other and _lies_in(one, other) for other in closed)]


def _lies_in(path: bytes, place: bytes) -> bool:
    return (path + b"/").startswith(place.rstrip(b"/") + b"/")


def _pattern(path: bytes) -> bytes:
    return b"".join(b"\\" + bytes([c]) if c in b"*?[]\\!" else bytes([c]) for c in path)
