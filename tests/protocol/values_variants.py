"""The protocol of the values log with one step left out or misplaced: what the schedules must find out."""

from __future__ import annotations

from typing import Final

from backstay.repository.logs.value_entries import Checkpoint, ValuesEntry
from backstay.repository.logs.values import LogView, ValuesLog
from backstay.repository.snapshots.store import Manifest
from backstay.repository.values.fold import _Fold
from backstay.repository.values.removal import Removal
from backstay.repository.values.state import ValuesState
from backstay.repository.values.tree import ValueTrees
from tests.protocol.values_world import ORDINARY, SLOW
from tests.protocol.variants import Variant


def _always_counts(_self: ValuesLog, _view: LogView, _entry: ValuesEntry) -> bool:
    return True


_checkpoint = _Fold._checkpoint


def _drop_first(self: _Fold, manifest: Manifest, state: ValuesState) -> Checkpoint | None:
    for source in state.sources:
        self._drop(source)
    return _checkpoint(self, manifest, state)


def _delete_first(self: _Fold, manifest: Manifest, state: ValuesState) -> Checkpoint | None:
    self._log.forget([entry.number for entry in state.view.entries])
    return _checkpoint(self, manifest, state)


def _no_intents(_self: Removal, _view: LogView) -> None:
    """Whoever is about to refer to a value is not asked."""


class _Hasty(_Fold):
    """A fold that does not wait for the snapshots that entries name."""

    def _state(self) -> ValuesState:
        repository, view = self._repository, self._log.refresh()
        return ValuesState(repository, view, ValueTrees(lambda: repository.reader))


VARIANTS: Final = (
    Variant("an entry counts whatever was covered", ((ValuesLog, "_counts", _always_counts),), SLOW, 102),
    Variant("snapshots are dropped before the checkpoint", ((_Fold, "_checkpoint", _drop_first),), ORDINARY, 421),
    Variant("entries are deleted before the checkpoint", ((_Fold, "_checkpoint", _delete_first),), ORDINARY, 0),
    Variant("a removal ignores intents", ((Removal, "_require_no_intents", _no_intents),), ORDINARY, 37),
    Variant("a fold does not wait for snapshots to come", ((_Fold, "_state", _Hasty._state),), SLOW, 17),
)
