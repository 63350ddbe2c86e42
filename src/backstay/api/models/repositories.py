"""The repository, its keys and its upkeep."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from backstay.api.models.backups import Level
from backstay.api.models.base import Asked, Line


class AskedUpkeep(Asked):
    """Whether only to tell."""

    dry_run: bool = False


class AskedPrune(AskedUpkeep):
    """Whose retention is carried out."""

    policy: Line


class AskedVerification(Asked):
    """What to verify, and how thoroughly: the newest backup of each source of a policy."""

    policy: Line
    level: Level = "integrity"
    min_bytes: Annotated[int | None, Field(ge=0, le=1 << 62)] = None


class RepositoryDocument(TypedDict):
    """The repository that the service keeps; its address without what is secret of it."""

    id: str
    address: str
    backups: int
    bytes: int
    stored_bytes: int
    held: int
    damaged: int
    newest_at: datetime | None


class StatsDocument(TypedDict):
    """How much the repository holds; sizes in bytes."""

    snapshots: int
    packs: int
    stored_bytes: int
    data_bytes: int
    meta_bytes: int
    raw_bytes: int
    index_segments: int
    source_bytes: int
    latest_bytes: int
    compression: float
    deduplication: float


class SlotDocument(TypedDict):
    """Who can open the repository; no secrets."""

    id: str
    kind: str
    created: str
    note: str


class EpochDocument(TypedDict):
    """A data key."""

    number: int
    created_at: datetime
    compromised: bool


class KeysDocument(TypedDict):
    """What opens the repository, and the data keys that protect what is stored."""

    slots: list[SlotDocument]
    epochs: list[EpochDocument]


class RotateKey(Asked):
    """Whether the old data keys are known to others."""

    compromised: bool = False
