"""Nodes to restore, and what may lie around them."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from pathlib import Path
from typing import Any

import pytest

from backstay.repository.nodes import Node

MTIME = 1_600_000_000_123_456_789
ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="needs root")


def node(name: bytes = b"name", mode: int = stat.S_IFREG | 0o640, **fields: Any) -> Node:
    base = {"uid": os.getuid(), "gid": os.getgid(), "user": "", "group": "", "size": 0, "mtime_ns": MTIME}
    return Node(name, mode, **{**base, **fields})


def file_node(data: bytes, **fields: Any) -> Node:
    return node(**{"size": len(data), "sha256": hashlib.sha256(data).digest(), **fields})


def no_leftovers(place: Path) -> bool:
    return not [name for _, dirs, files in os.walk(place) for name in dirs + files if name.startswith(".backstay-")]


def access_list(*entries: tuple[int, int, int]) -> bytes:
    """An access list as the kernel takes it, of (tag, rights, id)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODYS = 0xFFFFFFFF
FOR_1001 = access_list((1, 7, NOBODYS), (2, 7, 1001), (4, 7, NOBODYS), (16, 7, NOBODYS), (32, 0, NOBODYS))


def give(place: Path, kind: str) -> None:
    """Add an access list, the default one or that for access."""
    set_or_skip(place, f"system.posix_acl_{kind}", FOR_1001)


def set_or_skip(place: Path, name: str, value: bytes) -> None:
    """Set an extended attribute, where the file system of the tests knows such."""
    try:
        os.setxattr(place, name, value)
    except OSError:
        pytest.skip("not supported here")
