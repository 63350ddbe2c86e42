"""global/pg_control: which cluster a data directory is of, and what its server is at (PostgreSQL's pg_control.h)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CONTROL: Final = "global/pg_control"  # without it no server starts
_HEAD: Final = struct.Struct("=QIII")  # system identifier, versions of the file and the catalog, state
_IN_PRODUCTION: Final = 6


@dataclass(frozen=True, slots=True)
class ControlFile:
    """Its first fields."""

    system: int
    state: int

    @property
    def is_in_production(self) -> bool:
        """Whether the server has recovered, and takes writes."""
        return self.state == _IN_PRODUCTION


def read_control(data: Path) -> ControlFile | None:
    """That of a data directory; None if there is none, or one that is cut short. Raises OSError."""
    try:
        with (data / CONTROL).open("rb") as control:
            head = control.read(_HEAD.size)
    except FileNotFoundError:
        return None
    if len(head) < _HEAD.size:
        return None
    system, _, _, state = _HEAD.unpack(head)
    return ControlFile(system, state)
