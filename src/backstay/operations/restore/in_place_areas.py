"""Where a restore in place may stage and what it may move: one directory on each file system, and nothing mounted."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from backstay.core.names import printable
from backstay.errors import InsufficientSpace, RestoreFailed
from backstay.operations.restore.guarded import is_below
from backstay.operations.restore.in_place_plan import InPlacePlan
from backstay.operations.snapshots.walk import Enter
from backstay.repository.nodes import Node
from backstay.sources.directory_descriptors import is_closed_to_owner, is_readable
from backstay.sources.facts import Facts
from backstay.sources.kernel import mount_id
from backstay.sources.mount_points import mounted_within
from backstay.sources.restore_errors import failure
from backstay.sources.target_directory import TargetDirectory


@dataclass(frozen=True, slots=True)
class Missing:
    """A directory that is not there, and what has its name, if anything."""

    visit: Enter
    info: os.stat_result | None


@dataclass(slots=True, eq=False)
class LiveDirectory:
    """A directory of the walk as it is here. A `fresh` one is not there, and comes as part of a tree.

    An `undecided` one is not there either, and comes only if something in it is chosen.
    """

    path: bytes
    node: Node | None = None
    selected: bool = False
    directory: TargetDirectory | None = None
    mount: tuple[int, int] = (0, 0)
    inode: int | None = None
    fresh: bool = False
    undecided: Missing | None = None
    touched: bool = False
    linked: bool = False  # it holds a name of a file with several
    leads: bool = False  # something below it changes, or may
    names: set[bytes] | None = None

    def open(self, directory: TargetDirectory) -> None:
        """It is there: note which one it is and which mount it was reached through."""
        self.directory = directory
        info = os.fstat(directory.fd)
        self.mount, self.inode = (mount_id(directory.fd), info.st_dev), info.st_ino

    @property
    def must_be_entered(self) -> bool:
        """Whether its mode must be changed, so that what changes below it can be reached at all."""
        if not self.leads or self.directory is None:
            return False
        info, mode = os.fstat(self.directory.fd), self.directory.mode
        return is_closed_to_owner(info.st_uid, info.st_mode if mode is None else mode, 0o100)

    def facts(self) -> Facts:
        """What it looks like when nobody looks into it. Raises RestoreFailed."""
        assert self.directory is not None
        found = examined(self.directory.fd, b".", self.path)
        if self.directory.mode is None:
            return found
        return msgspec.structs.replace(found, mode=stat.S_IFMT(found.mode) | self.directory.mode)

    def close(self) -> None:
        if self.directory is not None:
            self.directory.close()
            self.directory = None


def examined(dir_fd: int, name: bytes, path: bytes) -> Facts:
    """What an item looks like. Raises RestoreFailed for one that does not tell all that a way back would need."""
    try:
        return Facts.of(dir_fd, name)
    except OSError as error:
        raise failure(error, path, "examine") from error


class Areas:
    """The directories of a plan in which is staged; `tops` are the absolute paths of what is restored."""

    def __init__(self, plan: InPlacePlan, tops: Callable[[], Iterable[bytes]]) -> None:
        self._plan, self._tops = plan, tops
        self._known: dict[tuple[int, int], int] = {}

    def holds(self, live: bytes) -> bool:
        """Whether a path is what is restored, or lies below that; directories on the way were only passed."""
        return any(is_below(live, top) for top in self._tops())

    def may_lie_in(self, live: bytes) -> bool:
        """Whether staging directories may be found there."""
        return any(is_below(top, live) for top in self._tops())

    def of(self, stack: Sequence[LiveDirectory]) -> int:
        """Where the last directory of the stack stages: on its own file system, beside what is restored.

        Raises RestoreFailed when this user may write to no such place.
        """
        here = next(live for live in reversed(stack) if live.directory is not None)
        known = self._known.get(here.mount)
        if known is not None:
            return known
        same = [live for live in stack if live.directory is not None and live.mount == here.mount]
        beside = [live for live in reversed(same) if not self.holds(live.path)][:1]
        within = [live for live in same if self.holds(live.path)][:1]
        for live in (*beside, *within):
            if live.directory is not None and _may_stage(live.directory.fd):
                return self._add(here.mount, live.path)
        raise RestoreFailed(
            f"cannot restore to {printable(here.path)}",
            cause="beside it there is no directory on its file system that you may write to",
            hint="run this as a user who may, or restore to another directory with --to",
        )

    def _add(self, mount: tuple[int, int], place: bytes) -> int:
        self._known[mount] = len(self._plan.places)
        self._plan.places.append(place)
        self._plan.room.append(0)
        return self._known[mount]


class Immovable:
    """What must not change its place with the directory that it lies in."""

    def __init__(self) -> None:
        """Raises RestoreFailed when that cannot be known."""
        try:
            self._mounts = mounted_within(b"/")
        except OSError as error:
            raise RestoreFailed(
                "cannot tell what is mounted below the target",
                cause=f"/proc/self/mountinfo: {error.strerror}",
                hint="mount /proc, or restore with --to DIR",
            ) from error

    def refuse(self, live: bytes) -> None:
        """Raises RestoreFailed for a directory with a mounted file system."""
        mounted = next((point for point in self._mounts if is_below(point, live)), None)
        if mounted is not None:
            raise RestoreFailed(
                f"cannot replace {printable(live)}",
                cause=f"a file system is mounted at {printable(mounted)}",
                hint="unmount it, or restore other paths one by one with ID:PATH",
            )


def require_changeable(path: bytes, fd: int) -> None:
    """Raises RestoreFailed for a directory whose entries this user cannot change."""
    title, hint = f"cannot restore to {printable(path)}", "run this as a user who may, or restore with --to DIR"
    if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        raise RestoreFailed(title, cause="it lies on a read-only file system", hint=hint)
    is_ours = os.fstat(fd).st_uid == os.geteuid()
    if not is_ours and not _may_write(fd):
        raise RestoreFailed(title, cause="no permission to write to it", hint=hint)


def require_room(place: bytes, needed: int) -> None:
    """Raises InsufficientSpace."""
    found = os.statvfs(place)
    free = (found.f_bfree if os.geteuid() == 0 else found.f_bavail) * found.f_frsize
    if needed > free:
        raise InsufficientSpace(
            f"there is not enough room beside {printable(place)}, nothing was changed",
            cause=f"the new items need {needed} bytes while the old ones stay, and {free} are free",
            hint="free space there, or restore a part with ID:PATH; --direct needs room for one file at a time",
        )


def _may_stage(fd: int) -> bool:
    return is_readable(fd) and _may_write(fd)


def _may_write(fd: int) -> bool:
    return os.access(f"/proc/self/fd/{fd}", os.W_OK | os.X_OK, effective_ids=True)
