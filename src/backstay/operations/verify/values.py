"""Verification of values: their log, and that what live snapshots refer to is there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from backstay.core.quantities import plural
from backstay.errors import CorruptedBackup, ObjectNotFound, UnsupportedFormat
from backstay.operations.verify.notes import Notes
from backstay.repository.cas import ContentAddressableStorage
from backstay.repository.checking.values import refuse_dropped_values
from backstay.repository.format import VALUES, values_name
from backstay.repository.logs.values import MEND_HINT, LogView
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.values.ids import value_id
from backstay.repository.values.references import named_values, refers_to_values
from backstay.repository.values.state import ValuesState
from backstay.repository.values.tree import ValueTrees

_FOREIGN_HINT = "find out what put it there, and remove it"
_LOST_HINT = "store it again, or restore the graph, which computes it anew"


@dataclass(slots=True)
class ValuesChecks:
    """Of one repository."""

    repository: Repository
    notes: Notes
    _view: LogView = field(default_factory=LogView)

    def run(self, manifests: list[Manifest], *, everything: bool) -> None:
        """Their log, if there is one, and what the snapshots refer to."""
        if everything and next(iter(self.repository.backend.list(VALUES)), None) is not None:
            self.notes.check("integrity", self.log)
        if any(map(refers_to_values, manifests)):
            self.notes.check("completeness", lambda: self.references(manifests))

    def log(self) -> str:
        """Every entry that counts opens, none is missing, and the snapshots that they name are there."""
        try:
            self._view = self.repository.values_log.refresh()
        except CorruptedBackup as error:
            self.notes.find("integrity", "values", error, "")
            return "log of values"
        for name in self._view.foreign:
            self.notes.find("integrity", name, "a foreign object lies in the log of values", _FOREIGN_HINT)
        for number, damage in self._view.damaged.items():
            self.notes.find("integrity", values_name(number), damage, "")
        for problem in self._state().problems:
            self.notes.find("completeness", "values", problem, MEND_HINT)
        try:
            refuse_dropped_values(self.repository)
        except CorruptedBackup as error:
            self.notes.find("completeness", "values", error, "")
        return f"{plural(len(self._view.entries), 'entry', 'entries')} of the log of values"

    def references(self, manifests: Iterable[Manifest]) -> str:
        """Every value that a snapshot refers to is there."""
        cas, count = ContentAddressableStorage(self.repository), 0
        deleted = self.repository.snapshots.graph_deletions.marked()  # their values may have gone
        for manifest in filter(refers_to_values, manifests):
            if manifest.id in deleted:
                continue
            subject = f"snapshot {manifest.id}"
            try:
                keys = [*map(value_id, named_values(self.repository, manifest))]
                for key in cas.missing(keys):
                    self.notes.find("completeness", subject, f"it refers to {key}, which is not there", _LOST_HINT)
                count += len(keys)
            except (CorruptedBackup, ObjectNotFound, UnsupportedFormat) as error:
                self.notes.find("completeness", subject, error, "")
        return plural(count, "value that snapshots refer to", "values that snapshots refer to")

    def _state(self) -> ValuesState:
        return ValuesState(self.repository, self._view, ValueTrees(lambda: self.repository.reader))
