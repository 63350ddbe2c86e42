"""The paths that a source was asked for, as a tree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final


@dataclass(slots=True)
class NamedPaths:
    """What was asked for at one directory and below: all of it (`whole`), and places further down by child name.

    Places below a whole directory are kept, because filters and mount points never hide what was named.
    """

    whole: bool = False
    below: dict[bytes, NamedPaths] = field(default_factory=dict)

    @classmethod
    def of(cls, paths: Iterable[bytes]) -> NamedPaths:
        """The tree for absolute paths; NOTHING_NAMED when there are none."""
        root = cls()
        for path in paths:
            place = root
            for name in filter(None, path.split(b"/")):
                place = place.below.setdefault(name, cls())
            place.whole = True
        return root if root.whole or root.below else NOTHING_NAMED


NOTHING_NAMED: Final = NamedPaths()
