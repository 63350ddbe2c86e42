"""What --delete takes away: what was asked for, and the snapshot does not hold."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from backstay.operations.restore.journal import PREFIX
from backstay.operations.snapshots.walk import EVERYTHING, Chooser
from backstay.sources.kernel import mount_id
from backstay.sources.target_directory import ASIDE, MAX_NAME, TargetDirectory

NOT_LOOKED_INTO: Final = "a file system is mounted there of which the snapshot holds nothing: nothing in it was deleted"
_ASIDE: Final = re.compile(rb"(.+)" + re.escape(ASIDE) + rb"(?:-[0-9]+)?", re.DOTALL)


class Stranger(NamedTuple):
    """One item to delete: the directories that lead to it from the one that was looked at, and its name."""

    above: tuple[bytes, ...]
    name: bytes

    def path(self, top: bytes) -> bytes:
        return b"/".join((top.rstrip(b"/"), *self.above, self.name))


def strangers(directory: TargetDirectory, path: bytes, held: set[bytes], chooser: Chooser) -> Iterator[Stranger]:
    """What is to be deleted in a directory that the snapshot has at `path`, with the names that it holds there.

    Those of one directory come together; there are none in a file system of which the snapshot holds nothing. Without a
    choice a strange directory goes as a whole; else only what is chosen goes, and a directory if it is chosen and
    nothing in it stays.
    """
    if directory.is_within_guarded() or is_spared(directory, held):
        return
    for name in directory.names():
        if name in held or name.startswith(PREFIX) or _was_set_aside(name, held) or directory.is_guarded(name):
            continue
        place = path.rstrip(b"/") + b"/" + name
        if chooser is EVERYTHING:
            yield Stranger((), name)
        elif not _is_directory(directory, name):
            if chooser.selects(place, False):
                yield Stranger((), name)
        elif chooser.may_contain(place):
            yield from _chosen_in(directory, name, place, chooser)


def is_spared(directory: TargetDirectory, held: set[bytes]) -> bool:
    """Whether a file system is mounted there of which the snapshot holds nothing: a backup may have left it out."""
    return not held and directory.is_mount_root()


def _was_set_aside(name: bytes, held: set[bytes]) -> bool:
    """Whether this is what a restore moved aside for an item that the snapshot holds."""
    found = _ASIDE.fullmatch(name)
    if found is None:
        return False
    return found[1] in held or (len(name) == MAX_NAME and any(one.startswith(found[1]) for one in held))  # cut short


@dataclass(slots=True)
class _Level:
    """A strange directory: what of it goes, and whether something of it stays."""

    directory: TargetDirectory
    path: bytes
    above: tuple[bytes, ...]
    names: Iterator[bytes]
    going: list[Stranger] = field(default_factory=list)
    going_below: list[Stranger] = field(default_factory=list)
    stays: bool = False


def _chosen_in(top: TargetDirectory, name: bytes, path: bytes, chooser: Chooser) -> list[Stranger]:
    """What is chosen of a strange directory. What is mounted in it stays."""
    stack = [_enter(top, name, path, ())]
    try:
        while True:
            level = stack[-1]
            below = _look(level, chooser)
            if below is not None:
                stack.append(below)
                continue
            stack.pop().directory.close()
            whole = not level.stays and chooser.selects(level.path, True)
            going = [Stranger(level.above[:-1], level.above[-1])] if whole else level.going + level.going_below
            if not stack:
                return going
            if whole:
                stack[-1].going += going
            else:
                stack[-1].going_below += going
                stack[-1].stays = True
    finally:
        for level in stack:
            level.directory.close()


def _look(level: _Level, chooser: Chooser) -> _Level | None:
    """Go on until there is a directory in it to be looked into."""
    for name in level.names:
        path = level.path + b"/" + name
        if not _is_directory(level.directory, name):
            if chooser.selects(path, False):
                level.going.append(Stranger(level.above, name))
            else:
                level.stays = True
        elif chooser.may_contain(path) and not level.directory.is_guarded(name):
            return _enter(level.directory, name, path, level.above)
        else:
            level.stays = True
    return None


def _enter(directory: TargetDirectory, name: bytes, path: bytes, above: tuple[bytes, ...]) -> _Level:
    below = directory.child(name, create=False)
    level = _Level(below, path, (*above, name), iter(()))
    if mount_id(below.fd) != mount_id(directory.fd):
        level.stays = True
    else:
        level.names = iter(below.names())
    return level


def _is_directory(directory: TargetDirectory, name: bytes) -> bool:
    info = directory.lstat(name)
    return info is not None and stat.S_ISDIR(info.st_mode)
