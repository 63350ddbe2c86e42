"""The same for programs on asyncio: each call is awaited, and runs on a thread."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

# Loaded when they are asked for: who needs the one does not load the other.
_HOMES = {
    "AsyncContentAddressableStorage": "backstay.aio.cas",
    "BackupManager": "backstay.aio.manager",
}

__all__ = ["AsyncContentAddressableStorage", "BackupManager"]

if TYPE_CHECKING:
    from backstay.aio.cas import AsyncContentAddressableStorage
    from backstay.aio.manager import BackupManager


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
