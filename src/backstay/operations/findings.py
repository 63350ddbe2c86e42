"""What checks find: severity, message, hint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Check: TypeAlias = Literal["integrity", "completeness", "size", "signature", "rehearsal"]
Severity: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a check found wrong, with the object or path that it is about."""

    check: Check
    severity: Severity
    subject: str
    message: str
    hint: str = ""
