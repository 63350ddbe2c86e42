"""Keys, signatures and the chain of snapshots: nobody changed or removed one without a record."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Final

from backstay.core.ids import is_ulid
from backstay.core.quantities import plural
from backstay.errors import BackstayError, CorruptedBackup, ObjectUnreadable
from backstay.operations.verify.notes import Notes
from backstay.repository.format import epoch_name, slot_name
from backstay.repository.keys.slots import SlotStore
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest

_HOLD_HINT: Final = "the snapshot counts as held; `backstay hold set` or `hold clear` says anew what holds"
_EPOCH_HINT: Final = "put this object back from a copy: its packs need it"
_REMOVAL_HINT: Final = (
    "put this object back from a copy; without it nobody is told if the key slot comes back, and opens the repository"
)
_REPLACED_HINT: Final = "compare the object with a copy: this is another than the one that was stored first"


@dataclass(frozen=True, slots=True)
class Signatures:
    """The check of all that is signed."""

    repository: Repository
    notes: Notes

    def keys(self) -> None:
        """Every key slot and epoch opens, none that was removed is back, and nothing else lies among them."""
        self.notes.check("signature", self._keys)

    def _keys(self) -> str:
        slots = 0
        for name, slot in SlotStore.read_all(self.repository.backend):
            slots += 1
            if isinstance(slot, CorruptedBackup | ObjectUnreadable):
                self.notes.find("signature", name, slot, "remove the slot and add a new one: `backstay key`")
        for digest in self.repository.slots.returned():
            message = "this key slot was removed, and is there all the same: its password or key opens the repository"
            hint = f"remove it again: `backstay key remove {digest.hex()[:8]}`"
            self.notes.find("signature", slot_name(digest), message, hint)
        for name, problem in self.repository.slots.unreadable_removals():
            self.notes.find("signature", name, problem, _REMOVAL_HINT)
        for number, error in self.repository.keyring.damaged.items():
            self.notes.find("signature", epoch_name(number), error, _EPOCH_HINT)
        for name in self.repository.keyring.foreign:
            self.notes.find(
                "signature", name, "a foreign object lies among the key epochs", "find out what put it there"
            )
        epochs = self.repository.keyring.epochs
        for epoch in epochs:
            check = partial(self.repository.keyring.check, epoch.number)
            self.notes.guarded("signature", epoch_name(epoch.number), check, _EPOCH_HINT)
        return f"{plural(slots, 'key slot')}, {plural(len(epochs), 'epoch')}"

    def manifests(self, wanted: set[str] | None) -> list[Manifest]:
        """Those of the live snapshots that are wanted, or all; the records beside them are looked at too."""
        store = self.repository.snapshots
        live: list[Manifest] = []

        def read() -> str:
            damaged: dict[str, BackstayError] = {}  # both meet the drops of snapshots that are there
            live.extend(store.live(on_damage=damaged.__setitem__))
            store.dropped(on_damage=damaged.__setitem__)
            for name, error in damaged.items():
                self.notes.find("signature", name, error)
            store.holds.held(on_damage=lambda name, error: self.notes.find("signature", name, error, _HOLD_HINT))
            store.graph_deletions.marked(on_damage=lambda name, error: self.notes.find("signature", name, error))
            self._attestations()
            self._chain(live)
            if live:
                for digest in self.repository.slots.lost(live[-1].slots):
                    self.notes.find("signature", f"keys/slots/{digest.hex()}", "this key slot is gone without a record")
            return f"{plural(len(live), 'snapshot')}, with signatures and chains"

        self.notes.check("signature", read)
        if "signature" not in self.notes.checks:
            live = store.live(on_damage=lambda name, error: self.notes.find("completeness", name, error))
        if not live:
            self.notes.warn("completeness", "snapshots", "there is no snapshot")
        return live if wanted is None else [manifest for manifest in live if manifest.id in wanted]

    def _attestations(self) -> None:
        """Each is whole, and speaks of a snapshot as it is stored; those of dropped ones wait for a collection."""
        for name, error in self.repository.attestations.problems():
            ulid = name.split("/")[1]
            if not (is_ulid(ulid) and self.repository.snapshots.dropped([ulid])):
                self.notes.find("signature", name, error)

    def _chain(self, live: list[Manifest]) -> None:
        """Each snapshot names the one before it, with its digest: none can vanish or change unnoticed."""
        store = self.repository.snapshots
        taken = set(store.taken())
        dropped = store.dropped(m.previous for m in live if m.previous is not None)
        for manifest in live:
            if manifest.previous is None or manifest.previous in dropped:
                continue
            if manifest.previous not in taken:
                self.notes.find(
                    "signature",
                    f"snapshots/{manifest.previous}",
                    "this snapshot is gone, and no record says that it was deleted",
                    "restore the object from a copy, or accept the loss with `backstay repair snapshots`",
                )
                continue
            self.notes.guarded("signature", manifest.previous, partial(self._link, manifest), _REPLACED_HINT)

    def _link(self, manifest: Manifest) -> None:
        assert manifest.previous is not None
        if self.repository.snapshots.digest(manifest.previous) != manifest.previous_digest:
            raise CorruptedBackup(
                f"snapshots/{manifest.previous} is not the one that {manifest.id} followed", cause="its digest differs"
            )
