"""The order in which objects of a repository are copied, so that what was copied is a repository at any moment.

What refers to something comes after it, as when it was written: docs/crash-safety.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

# Only meaningful in the store that they were made in: announcements, the right to write there, probes, ledgers.
TRANSIENT: Final = ("sessions/", "lease/", "readers/", "probe/", "quota/", "mirror/")
_VERDICTS: Final = "verdicts of gc/"
_ORDER: Final = ("keys/", "repo.json", "holds/", "drops/", "gc/", "packs/", "meta/", "index/", _VERDICTS)
_LAST: Final = "snapshots/"


def in_crash_order(names: Iterable[str]) -> list[str]:
    """Keys, repo.json, holds, deletions, packs, index, verdicts, what this program does not know, and snapshots last.

    Readers use no pack that a verdict deletes: what was copied out of it must be found in another one before.
    """
    return sorted(names, key=_key)


def is_transient(name: str) -> bool:
    """Whether an object means something only in its own store."""
    return name.startswith(TRANSIENT)


def _key(name: str) -> tuple[int, str]:
    if name.startswith(_LAST):
        return len(_ORDER) + 1, name
    if name.startswith("gc/") and name.endswith(".done"):
        return _ORDER.index(_VERDICTS), name
    found = (at for at, prefix in enumerate(_ORDER) if name.startswith(prefix))
    return next(found, len(_ORDER)), name
