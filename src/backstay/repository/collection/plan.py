"""What a collection of garbage would do, and what it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from backstay.repository.collection.deleting import Refusal
from backstay.repository.format import RecordKind
from backstay.repository.index.chunk_filter import ChunkFilter


@dataclass(slots=True)
class CollectionPlan:
    """What a collection would do; sizes in bytes."""

    number: int
    marked: tuple[str, ...] = ()
    dead: dict[bytes, tuple[RecordKind, int]] = field(default_factory=dict)  # pack -> kind, size
    sparse: dict[bytes, tuple[RecordKind, int, int]] = field(default_factory=dict)  # pack -> kind, size, live bytes
    total_packs: int = 0
    total_bytes: int = 0
    unfinished: tuple[int, ...] = ()
    live: ChunkFilter | None = field(default=None, repr=False)

    @property
    def dead_bytes(self) -> int:
        return sum(size for _, size in self.dead.values())

    @property
    def rewritten_bytes(self) -> int:
        return sum(live for _, _, live in self.sparse.values())

    @property
    def freed_bytes(self) -> int:
        """What is expected to be free once the collection and all that it waits for are done."""
        return self.dead_bytes + sum(size - live for _, size, live in self.sparse.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionResult:
    """What a collection did; `waiting_for` are the writers that keep it from finishing now."""

    deleted_packs: int
    freed_bytes: int
    rewritten_bytes: int
    kept_packs: int
    fenced: tuple[str, ...]
    waiting_for: tuple[str, ...]
    swept_temporaries: int = 0
    deferred_packs: int = 0  # in a cold tier that is not attached; a later collection deletes them
    deferred_bytes: int = 0
    retained_packs: int = 0  # deleted as far as programs see, but locked: the store keeps their bytes for now
    retained_bytes: int = 0
    retained_until: datetime | None = None  # when the last of these locks ends; None too where a hold keeps a pack
    refused: tuple[Refusal, ...] = ()  # what the store did not delete; a later collection tries it again
