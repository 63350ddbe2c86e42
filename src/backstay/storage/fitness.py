"""Whether a store can hold a repository: tried out, before anything is written."""

from __future__ import annotations

from backstay.errors import StorageUnfit
from backstay.storage.backend import Capabilities, StorageBackend
from backstay.storage.probing import probe_capabilities


def require_fit(backend: StorageBackend) -> Capabilities:
    """What the store can do, if that is enough. Raises StorageUnfit.

    Snapshots are committed, and writers fenced, by creating a name that only one of several can create. Where a kind of
    store has no such thing, only one program may write at a time, and the repository sees to that
    (`repository/sessions/lease.py`). A server that should have it and overwrites instead is not trusted at all.
    """
    declared = backend.capabilities
    found = declared if declared.proven else probe_capabilities(backend)
    if lacking := _lacking(declared, found):
        raise StorageUnfit(f"{backend.url} cannot hold a repository", cause=" and ".join(lacking))
    return found


def _lacking(declared: Capabilities, found: Capabilities) -> list[str]:
    lacks = {
        "it overwrites an object that it was asked only to create, so that writers at the same time lose data": (
            found.atomic_create or not declared.atomic_create
        ),
        "it does not give parts of objects": found.range_reads,
    }
    return [what for what, has in lacks.items() if not has]
