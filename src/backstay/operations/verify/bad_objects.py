"""How many objects of the repository a verification found to be damaged, and how many not to be there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from backstay.operations.findings import Finding

# Names of objects have a directory; other subjects are snapshots, paths in them, or the program's own words.
_OBJECT: Final = re.compile(r"(packs|meta|index|sessions|snapshots|drops|holds|keys|wal|values|gc)/\S+", re.ASCII)
_FOREIGN: Final = "a foreign object"  # that it is there harms nothing that was stored
_MISSING: Final = re.compile(r"\b(is missing|is gone)\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class BadObjects:
    """Each object counts once, whatever was found about it."""

    damaged_objects: int = 0
    missing_objects: int = 0


def bad_objects(findings: Iterable[Finding]) -> BadObjects:
    """Count the objects that errors are about."""
    missing: dict[str, bool] = {}
    for finding in findings:
        if finding.severity == "error" and _OBJECT.fullmatch(finding.subject) and _FOREIGN not in finding.message:
            gone = _MISSING.search(finding.message) is not None
            missing[finding.subject] = missing.get(finding.subject, False) or gone
    lost = sum(missing.values())
    return BadObjects(damaged_objects=len(missing) - lost, missing_objects=lost)
