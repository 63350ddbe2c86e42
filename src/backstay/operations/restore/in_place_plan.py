"""What a restore in place has to change: which items, and where they are staged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from backstay.errors import RestoreConflict
from backstay.operations.restore.journal import Dress
from backstay.operations.snapshots.walk import Chooser
from backstay.sources.source import Problem

SHOWN: Final = 1000  # conflicts that are named


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One item to put, to replace or, with `removal`, to take away; `inside` is its path in the snapshot.

    `live` is its absolute path here, `staged` its path in the directory of `area`; `old` is the inode there is,
    `old_look` and `old_changed` are what it looks like and when it was changed, as far as that tells whether it is.
    """

    live: bytes
    inside: bytes
    staged: bytes
    area: int
    old: int | None
    old_look: str | None = None
    old_changed: int = 0
    removal: bool = False
    is_tree: bool = False


@dataclass(slots=True)
class InPlacePlan:
    """`places` are where directories for staging will be made, one on each file system; `room` is needed in each."""

    changes: list[Change] = field(default_factory=list)
    dresses: list[Dress] = field(default_factory=list)
    places: list[bytes] = field(default_factory=list)
    room: list[int] = field(default_factory=list)
    leftovers: list[bytes] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    conflict_count: int = 0
    problems: list[Problem] = field(default_factory=list)
    unchanged: int = 0
    skipped: int = 0


class Chosen:
    """What must be staged in one area: the items that differ and the trees that are not there at all."""

    def __init__(self, plan: InPlacePlan, area: int, chooser: Chooser) -> None:
        ours = [change for change in plan.changes if change.area == area and not change.removal]
        self._items = {change.inside for change in ours if not change.is_tree}
        self._trees = {change.inside for change in ours if change.is_tree}
        self._above: set[bytes] = set()
        for path in self._items | self._trees:
            while (path := path.rpartition(b"/")[0]) and path not in self._above:
                self._above.add(path)
        self._chooser = chooser

    def selects(self, path: bytes, is_dir: bool) -> bool:
        return ((not is_dir and path in self._items) or self._is_in_tree(path)) and self._chooser.selects(path, is_dir)

    def may_contain(self, path: bytes) -> bool:
        return (path in self._above or self._is_in_tree(path)) and self._chooser.may_contain(path)

    def _is_in_tree(self, path: bytes) -> bool:
        if b"/" in self._trees:
            return True
        while path and path not in self._trees:
            path = path.rpartition(b"/")[0]
        return bool(path)


def require_no_conflict(plan: InPlacePlan) -> None:
    """Raises RestoreConflict if something differs and nothing was said about it."""
    if not plan.conflict_count:
        return
    shown = ", ".join(plan.conflicts[:5]) + (", …" if plan.conflict_count > 5 else "")
    differ = "1 item differs" if plan.conflict_count == 1 else f"{plan.conflict_count} items differ"
    raise RestoreConflict(
        f"{differ} from the snapshot, nothing was changed",
        cause=shown,
        hint="choose --conflict overwrite (the old state can be had back until it is removed), skip or newer",
        paths=tuple(plan.conflicts),
    )
