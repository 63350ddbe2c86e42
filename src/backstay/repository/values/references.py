"""Which values live snapshots refer to: those of graphs name them in `/values.txt`, one SHA-256 a line, sorted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Final

from backstay.core.ids import is_digest
from backstay.errors import CorruptedBackup, NotFound
from backstay.repository.blobs.contents import read_content
from backstay.repository.nodes import EMPTY
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.trees.listings import find_node

GRAPH_SOURCE: Final = "graph:"  # how `source` of a graph's snapshot begins
VALUES_FILE: Final = b"/values.txt"
_CACHED: Final = 64 << 20  # bytes of lists that are remembered


def refers_to_values(manifest: Manifest) -> bool:
    """Whether a snapshot names values that must stay while it does."""
    return manifest.source.startswith(GRAPH_SOURCE)


def named_values(repository: Repository, manifest: Manifest) -> Iterator[bytes]:
    """The SHA-256 of every value that a graph's snapshot refers to. Raises CorruptedBackup."""
    try:
        node = find_node(manifest.root, VALUES_FILE, repository.reader)
    except NotFound as error:
        raise _malformed(manifest, "it has no values.txt") from error
    rest = b""
    for piece in read_content((node.content if node is not None else None) or EMPTY, repository.reader):
        *lines, rest = (rest + bytes(piece)).split(b"\n")
        if len(rest) > 64:
            raise _malformed(manifest, "its values.txt has a line that is no SHA-256")
        for line in lines:
            text = line.decode("ascii", "replace")
            if not is_digest(text):
                raise _malformed(manifest, "its values.txt has a line that is no SHA-256")
            yield bytes.fromhex(text)
    if rest:
        raise _malformed(manifest, "its values.txt is cut short")


def _malformed(manifest: Manifest, cause: str) -> CorruptedBackup:
    return CorruptedBackup(f"snapshot {manifest.id} does not say which values it needs", cause=cause)


class ValueReferences:
    """Looks values up in the lists of all live snapshots of graphs; these do not change, so that they are kept.

    One that is marked as deleted keeps no values, and waits only for a collection to say what it named.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._lists: OrderedDict[str, frozenset[bytes]] = OrderedDict()
        self._cached = 0

    def naming(self, digests: Iterable[bytes]) -> dict[bytes, str]:
        """Those of the values that a live snapshot names, with the first that does. Raises CorruptedBackup."""
        wanted = set(digests)
        found: dict[bytes, str] = {}
        marked = self._repository.snapshots.graph_deletions.marked()
        for manifest in self._repository.snapshots.live():
            if not wanted:
                break
            if refers_to_values(manifest) and manifest.id not in marked:
                named = wanted & self._named(manifest)
                found.update(dict.fromkeys(named, manifest.id))
                wanted -= named
        return found

    def _named(self, manifest: Manifest) -> frozenset[bytes]:
        known = self._lists.get(manifest.id)
        if known is None:
            known = self._lists[manifest.id] = frozenset(named_values(self._repository, manifest))
            self._cached += 100 * len(known)
            while self._cached > _CACHED and len(self._lists) > 1:
                self._cached -= 100 * len(self._lists.popitem(last=False)[1])
        self._lists.move_to_end(manifest.id)
        return known
