"""Compares a directory with what the golden repository says it must be."""

# ruff: noqa: PTH101, PTH115, PTH123 - names are bytes that need not be text

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes


def differences(root: Path, tree: dict[str, dict[str, Any]]) -> list[str]:
    """What is not as described; owners and devices count only where this user may make them, sockets never."""
    top = os.fsencode(root)
    found = [
        f"{quote_from_bytes(path)} should not be there"
        for path in _everything(top)
        if quote_from_bytes(path) not in tree
    ]
    groups: dict[str, set[tuple[int, int]]] = {}
    has_xattrs = _takes_xattrs(root)
    for path, facts in tree.items():
        kind = stat.S_IFMT(int(facts["mode"], 8))
        if kind == stat.S_IFSOCK or (kind in (stat.S_IFCHR, stat.S_IFBLK) and os.geteuid() != 0):
            continue
        place = top + unquote_to_bytes(path)
        if not os.path.lexists(place):
            found.append(f"{path} is missing")
            continue
        found += [f"{path}: {problem}" for problem in _problems(place, facts, has_xattrs=has_xattrs)]
        if "links" in facts:
            info = os.lstat(place)
            groups.setdefault(facts["links"], set()).add((info.st_dev, info.st_ino))
    return found + [f"the hard links {group} are several files" for group, inodes in groups.items() if len(inodes) > 1]


def _everything(top: bytes) -> list[bytes]:
    found = []
    for directory, directories, files in os.walk(top):
        found += [directory[len(top) :] + b"/" + name for name in directories + files]
    return found


def _takes_xattrs(root: Path) -> bool:
    try:
        os.setxattr(root, b"user.backstay-test", b"")
        os.removexattr(root, b"user.backstay-test")
    except OSError:
        return False
    return True


def _problems(place: bytes, facts: dict[str, Any], *, has_xattrs: bool) -> list[str]:
    info = os.lstat(place)
    is_link = stat.S_ISLNK(info.st_mode)
    seen: dict[str, Any] = {"mtime_ns": info.st_mtime_ns}
    seen["mode"] = oct(stat.S_IFMT(info.st_mode) if is_link else info.st_mode)
    wanted = {**facts, "mode": oct(stat.S_IFLNK)} if is_link else dict(facts)
    if os.geteuid() == 0:
        seen["owner"] = [info.st_uid, info.st_gid]
    if is_link:
        seen["target"] = quote_from_bytes(os.readlink(place))
    if "sha256" in wanted:
        seen["size"] = info.st_size
        seen["sha256"] = _digest(place, info)
        if wanted["holes"] and info.st_blocks * 512 >= info.st_size:
            seen["holes"] = False
    if has_xattrs and not is_link:
        names = [name for name in os.listxattr(place) if name.startswith("user.")]
        seen["xattrs"] = {name: os.getxattr(place, name).hex() for name in sorted(names)}
        wanted.setdefault("xattrs", {})
    return [f"{name} is {value}, not {wanted[name]}" for name, value in seen.items() if value != wanted[name]]


def _digest(place: bytes, info: os.stat_result) -> str:
    if not os.access(place, os.R_OK):  # a mode of 0, and not the superuser
        os.chmod(place, 0o400)
    try:
        with open(place, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    finally:
        os.chmod(place, stat.S_IMODE(info.st_mode))
