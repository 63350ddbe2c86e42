"""What a copy to another store did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backstay.operations.findings import Finding


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyResult:
    """`mirror`: the target has every object, by name and size. `snapshots`: another repository has these snapshots too.

    `bytes` are those that were sent. `copied` are pairs of ids, here and there; `already` those that were there;
    `wal_files` how many files of WAL and slices of binary logs went into another repository.
    """

    kind: Literal["mirror", "snapshots"]
    objects: int = 0
    bytes: int = 0
    removed: int = 0
    wal_files: int = 0
    copied: tuple[tuple[str, str], ...] = ()
    already: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
