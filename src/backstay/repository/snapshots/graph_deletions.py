"""Marks of graph snapshots that were deleted and not collected yet.

A deletion takes two steps, because the snapshot itself says which values it used: it is marked, and later a collection
removes the values that no live snapshot names, drops the snapshot, and takes the mark away. Until then a mark can be
taken back.

**A hold outweighs a mark**, as it outweighs a drop. Who marks looks for a hold afterwards, who holds looks for a mark
afterwards, and each withdraws when it finds the other; so a snapshot that is held is not marked, whoever came first.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

import msgspec

from backstay.core.clock import Clock
from backstay.errors import (
    BackstayError,
    CorruptedBackup,
    ObjectExists,
    ObjectNotFound,
    ObjectUnreadable,
    UnsupportedFormat,
)
from backstay.repository.format import GRAPHS, RecordKind, graph_deletion_name
from backstay.repository.keys.keyring import Keyring
from backstay.storage.backend import StorageBackend
from backstay.storage.copies import retrieve_valid

_NAME: Final = re.compile(rf"{GRAPHS}([0-7][0-9a-hjkmnp-tv-z]{{25}})\.deleted")


class GraphDeletionRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """graphs/<id>.deleted: the next collection may remove this snapshot, and values that only it names."""

    snapshot: str
    deleted_ns: int
    reason: str


class GraphDeletions:
    """The marks of a repository."""

    def __init__(self, backend: StorageBackend, keyring: Keyring) -> None:
        self._backend, self._keyring = backend, keyring

    def mark(self, snapshot: str, reason: str, clock: Clock) -> bool:
        """Mark a snapshot; False if it was marked before. One object: a crash leaves it there or not."""
        record = GraphDeletionRecord(snapshot, clock.now_ns(), reason)
        try:
            self._backend.store(graph_deletion_name(snapshot), self._keyring.seal(RecordKind.GRAPH_DELETION, record))
        except ObjectExists:
            return False
        return True

    def unmark(self, snapshot: str) -> None:
        """Take the mark of a snapshot away: it exists again, or was dropped."""
        self._backend.delete(graph_deletion_name(snapshot))

    def is_marked(self, snapshot: str) -> bool:
        """Whether it has a mark that is genuine."""
        return snapshot in self.marked()

    def marked(self, on_damage: Callable[[str, BackstayError], None] | None = None) -> dict[str, GraphDeletionRecord]:
        """The marked snapshots. A mark that cannot be read deletes nothing, and goes to `on_damage`."""
        found: dict[str, GraphDeletionRecord] = {}
        for info in list(self._backend.list(GRAPHS)):
            try:
                record = self._read(info.name)
            except ObjectNotFound:
                continue
            except (CorruptedBackup, UnsupportedFormat, ObjectUnreadable) as error:
                if on_damage is not None:
                    on_damage(info.name, error)
                continue
            found[record.snapshot] = record
        return found

    def _read(self, name: str) -> GraphDeletionRecord:
        return retrieve_valid(self._backend, name, lambda data: self.decode(name, data))

    def decode(self, name: str, data: bytes) -> GraphDeletionRecord:
        """A record from its stored bytes. Raises CorruptedBackup, UnsupportedFormat."""
        if _NAME.fullmatch(name) is None:
            raise CorruptedBackup("a foreign object lies among the marks of graphs", cause=name[:200])
        record = self._keyring.open(data, RecordKind.GRAPH_DELETION, GraphDeletionRecord)
        if graph_deletion_name(record.snapshot) != name:
            raise CorruptedBackup(f"{name} marks another snapshot")
        return record
