"""What is asked of a restore."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, TypeAlias

from backstay.core.arguments import Bounds, checks_arguments
from backstay.operations.snapshots.walk import EVERYTHING, Chooser
from backstay.operations.tiers.cold_packs import THAW_DAYS
from backstay.repository.nodes import Node

Conflict: TypeAlias = Literal["fail", "skip", "overwrite", "newer", "rename"]

MOST_PARALLEL: Final = 64  # files written at once


@checks_arguments
@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """What to restore, and what to do about things that are in the way."""

    path: bytes | None = None  # only this subtree, put itself into the target
    chooser: Chooser = EVERYTHING
    conflict: Conflict = "fail"
    delete: bool = False
    verify: bool = False
    in_place: bool = False
    keep_old: bool = False  # of a restore in place: what was replaced stays in the directory that is told
    spared: tuple[Path, ...] = ()  # what --delete leaves alone, such as the directory of key files
    parallel: Annotated[int, Bounds(1, MOST_PARALLEL)] | None = None
    thaw_days: Annotated[int, Bounds(1, 365)] = THAW_DAYS
    wait: bool = True  # for what is frozen; else ThawPending

    def replaces(self, existing_mtime_ns: int, node: Node | None) -> bool:
        """Whether what differs gives way to the snapshot's item, if anything does."""
        if self.conflict == "newer":
            return node is None or existing_mtime_ns <= node.mtime_ns
        return self.conflict != "skip"
