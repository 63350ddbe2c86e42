"""What must not go in a target, whatever is restored: who restores says which."""

from __future__ import annotations

import os
from typing import Final, Protocol


class Guard(Protocol):
    """Asked by absolute path, and by inode for what is mounted at several places."""

    def holds(self, path: bytes, info: os.stat_result) -> bool:
        """Whether an item is one that must not go, or holds one."""

    def is_within(self, path: bytes) -> bool:
        """Whether a directory is one of which nothing must go, or lies in one."""

    def refuse(self, path: bytes, info: os.stat_result) -> None:
        """Raises InvalidRequest for a directory that is one that must not go, or holds one."""


class _Nothing:
    def holds(self, path: bytes, info: os.stat_result) -> bool:  # noqa: ARG002
        return False

    def is_within(self, path: bytes) -> bool:  # noqa: ARG002
        return False

    def refuse(self, path: bytes, info: os.stat_result) -> None:
        """Nothing is guarded."""


NOTHING_GUARDED: Final = _Nothing()
