"""The cold tier as healing sees it: where the packs are that notes of the hot store speak of.

A copy that `copy --to` made has no tier: its packs all lie in it, and the other store's notes do not belong there. The
copies of a mirrored hot store have one tier together, and each has its rule and its notes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self, TypeAlias

from backstay.repository.logs.tiers import TierLog, cold_store
from backstay.repository.repository import Repository
from backstay.storage.backend import ObjectInfo, StorageBackend
from backstay.storage.cold_store import ColdStore
from backstay.storage.mirror_log import is_marked_as_first
from backstay.storage.tiered import MOVABLE, NOTES, OWN, Tiered, note_name, read_note

Sizes: TypeAlias = Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TierView:
    """What is behind the damaged store. Without a tier everything in it is empty.

    `cold` are packs that belong into the cold tier alone. `is_hot` is whether the damaged store is a hot one, to which
    notes and rules belong; `rule_is_lost` whether there are notes, and nothing says any more where the cold tier is.
    """

    store: ColdStore | None = None
    is_hot: bool = False
    is_attached: bool = False
    rule_is_lost: bool = False
    noted: Sizes  # packs that either store has notes of
    cold: dict[str, int]
    there: Sizes  # what the cold store itself lists

    @classmethod
    def of(
        cls, repository: Repository, damaged: StorageBackend, copy: StorageBackend, ours: Sizes, theirs: Sizes
    ) -> Self:
        """`ours` and `theirs` are the objects of the damaged store and of its copy.

        Raises StorageUnavailable when the cold store gives no answer.
        """
        noted = {**_noted(theirs), **_noted(ours)}
        backend = repository.backend
        rule = TierLog(backend.inner if isinstance(backend, Tiered) else backend, repository.keyring).read()
        if isinstance(backend, Tiered):
            store = backend.cold
        elif rule is None and noted:
            damage = "there are notes of packs in it, but no rule is left"
            store = cold_store(None, repository.keyring, repository.environment.open_cold, damage=damage)
        else:
            return cls.none()
        is_hot = any(name.startswith(OWN) for name in ours) or not ours or _is_mirror(damaged, copy, ours, noted)
        is_attached = store.is_attached()
        there = {info.name: info.size for info in store.open().list(MOVABLE)} if is_attached else {}
        return cls(
            store=store,
            is_hot=is_hot,
            is_attached=is_attached,
            rule_is_lost=rule is None,
            noted=noted,
            cold={name: size for name, size in noted.items() if name not in ours} if is_hot else {},
            there=there,
        )

    @classmethod
    def none(cls) -> Self:
        """There is no tier."""
        return cls(noted={}, cold={}, there={})

    def belongs(self, name: str) -> bool:
        """Whether an object that only the copy has may be brought to the damaged store at all."""
        if self.store is None:  # there is none any more: a rule says so, and notes mean nothing
            return not name.startswith(NOTES)
        return self.is_hot or not name.startswith(OWN)

    def needed_of(self, theirs: Sizes) -> dict[str, int]:
        """Packs that the copy keeps in the cold tier, and that a store without one must have itself."""
        return {} if self.is_hot else {name: size for name, size in self.noted.items() if name not in theirs}

    def of_damaged(self, damaged: StorageBackend, name: str) -> StorageBackend:
        """Where a pack of the damaged store should lie."""
        return self.store.open() if self.store is not None and name in self.cold else damaged

    def behind(self, copy: StorageBackend) -> StorageBackend:
        """A copy together with the cold packs that it has notes of."""
        return Tiered(copy, self.store) if self.store is not None else copy

    def lost_note(self, name: str, size: int) -> str | None:
        """The note that should speak of a pack: the cold store has it, and the hot ones know nothing of it."""
        return note_name(name, size) if self.is_hot and self.there.get(name) == size else None


def _is_mirror(damaged: StorageBackend, copy: StorageBackend, ours: Sizes, noted: Iterable[str]) -> bool:
    """Whether a store without rule and notes should have those of the copy: it lost them, rather than never had any.

    One without a tier has the very packs that the notes speak of.
    """
    if any(name in ours for name in noted):
        return False
    return is_marked_as_first(damaged) or is_marked_as_first(copy)


def _noted(sizes: Sizes) -> dict[str, int]:
    """The packs that a store's notes speak of."""
    notes = (read_note(ObjectInfo(name=name, size=0, modified_ns=0)) for name in sizes if name.startswith(NOTES))
    return {found[0]: found[1].size for found in notes if found is not None}
