"""What the manifest of a graph's snapshot says beside what all manifests say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from backstay.repository.snapshots.store import Manifest
from backstay.repository.values.references import GRAPH_SOURCE

# In `consistency`:
NODE_COUNT: Final = "graph_nodes"
VALUE_COUNT: Final = "graph_values"
IMPORTED: Final = "graph_imported"  # the id that the snapshot had where it came from
REQUIRES: Final = "graph_requires."  # and the name of another graph: the snapshot of it that this one refers to


@dataclass(frozen=True, slots=True, kw_only=True)
class Required:
    """What a graph takes from others: for each the id of its snapshot in force, and the digests of their values."""

    snapshots: tuple[tuple[str, str], ...] = ()
    values: frozenset[str] = frozenset()


def graph_of(manifest: Manifest) -> str | None:
    """The name of the graph that a snapshot is of; None for other snapshots."""
    return manifest.source.removeprefix(GRAPH_SOURCE) if manifest.source.startswith(GRAPH_SOURCE) else None


def required_snapshots(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Names of the other graphs that a snapshot refers to, each with the snapshot of it that was in force."""
    for key, ulid in manifest.consistency.items():
        if key.startswith(REQUIRES):
            yield key.removeprefix(REQUIRES), ulid
