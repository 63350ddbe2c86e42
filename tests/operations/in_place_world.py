"""A snapshot, other states of the same tree, and calls that stop or fail at a chosen one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

from backstay.core.clock import SystemClock
from backstay.operations.backup.run import BackupOptions, run_backup
from backstay.operations.restore.in_place import InPlaceResult, restore_in_place
from backstay.operations.restore.run import RestoreOptions
from backstay.repository.repository import Environment, Repository
from backstay.repository.snapshots.store import Manifest
from backstay.sources.filesystem import FilesystemSource
from backstay.sources.filters import Filters
from backstay.sources.switch_calls import SwitchCalls
from backstay.storage.memory import MemoryStorage
from backstay.testing import CrashPoint
from tests.crash.small_world import SECRET

Seen: TypeAlias = dict[str, tuple[object, ...]]

MOMENT: Final = 1_700_000_000_000_000_000
OVERWRITE: Final = RestoreOptions(conflict="overwrite", delete=True)
KEEP: Final = replace(OVERWRITE, keep_old=True)


class BrokenCalls(SwitchCalls):
    """Stops at the `at`-th call, or lets it fail with an errno; with `after` it has its effect first.

    After a stop every call stops, as those of a dead process do. `can_exchange` is false for old file systems.
    """

    def __init__(
        self, at: int = 0, *, fault: int | None = None, after: bool = False, can_exchange: bool = True
    ) -> None:
        self.count = 0
        self.names: list[str] = []
        self._at, self._fault, self._after, self._can_exchange = at, fault, after, can_exchange
        self._dead = False

    def exchange(self, one_fd: int, one: bytes, other_fd: int, other: bytes) -> None:
        if not self._can_exchange:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self._call("exchange", lambda: SwitchCalls.exchange(self, one_fd, one, other_fd, other))

    def move(self, from_fd: int, old: bytes, to_fd: int, new: bytes) -> None:
        self._call("move", lambda: SwitchCalls.move(self, from_fd, old, to_fd, new))

    def replace(self, fd: int, old: bytes, new: bytes) -> None:
        self._call("replace", lambda: SwitchCalls.replace(self, fd, old, new))

    def create(self, fd: int, name: bytes) -> int:
        made: list[int] = []
        self._call("create", lambda: made.append(SwitchCalls.create(self, fd, name)))
        return made[0]

    def mkdir(self, fd: int, name: bytes) -> None:
        self._call("mkdir", lambda: SwitchCalls.mkdir(self, fd, name))

    def rmdir(self, fd: int, name: bytes) -> None:
        self._call("rmdir", lambda: SwitchCalls.rmdir(self, fd, name))

    def fsync(self, fd: int) -> None:
        self._call("fsync", lambda: None)

    def sync(self, fd: int) -> None:
        self._call("sync", lambda: None)

    def step(self, what: str) -> None:
        self._call(what, lambda: None)

    def _call(self, name: str, effect: Callable[[], object]) -> None:
        if self._dead:
            raise CrashPoint
        self.count += 1
        self.names.append(name)
        if self.count != self._at:
            effect()
            return
        if self._after:
            effect()
        if self._fault is not None:
            raise OSError(self._fault, os.strerror(self._fault))
        self._dead = True
        raise CrashPoint


@dataclass
class InPlaceWorld:
    """One repository with one snapshot of `origin`."""

    place: Path
    repository: Repository = field(init=False)
    manifest: Manifest = field(init=False)

    def __post_init__(self) -> None:
        self.repository = Repository.create(MemoryStorage(), SECRET, environment=Environment(threads=1))

    @property
    def origin(self) -> Path:
        return self.place / "origin/data"

    def snapshot(self, *excluded: bytes) -> None:
        source = FilesystemSource([os.fsencode(self.origin)], filters=Filters(excluded), clock=SystemClock())
        made = run_backup(self.repository, source, BackupOptions(host="host")).snapshot
        assert made is not None
        self.manifest = self.repository.snapshots.get(made)

    def restore(
        self, target: Path, options: RestoreOptions = OVERWRITE, calls: SwitchCalls | None = None
    ) -> InPlaceResult:
        """What lay in `origin`, into another directory, with all the care of one in place."""
        options = replace(options, path=os.fsencode(self.origin))
        return restore_in_place(self.repository, self.manifest, options, target=target, calls=calls)


def write(path: Path, text: str, *, mode: int = 0o644, at: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    os.utime(path, ns=(MOMENT + at, MOMENT + at))


def settle(root: Path, at: int = 0) -> None:
    """Give all directories a known time, from the inside out."""
    for directory, _, _ in os.walk(root, topdown=False):
        os.utime(directory, ns=(MOMENT + at, MOMENT + at))


def backed_up(root: Path) -> None:
    """The state that the snapshot holds."""
    write(root / "same", "same")
    write(root / "differs", "as it was", mode=0o600)
    write(root / "lost", "lost")
    write(root / "dir/differs", "as it was, too")
    write(root / "dir/mode", "mode", mode=0o640)
    write(root / "lost dir/inner/file", "file in it")
    write(root / "was a dir", "now a file")
    write(root / "was a file/file", "in a dir")
    write(root / "linked", "two names")
    (root / "linked too").hardlink_to(root / "linked")
    (root / "link").symlink_to("same")
    os.utime(root / "link", ns=(MOMENT, MOMENT), follow_symlinks=False)
    (root / "dir").chmod(0o750)
    settle(root)


def changed(root: Path) -> None:
    """What has become of it since."""
    write(root / "same", "same")
    write(root / "differs", "changed", mode=0o644, at=5)
    write(root / "dir/differs", "changed, too", at=6)
    write(root / "dir/mode", "mode", mode=0o600, at=7)
    write(root / "dir/stranger", "new since", at=8)
    write(root / "strange dir/file", "new since", at=9)
    write(root / "was a dir/file", "a file")
    write(root / "was a file", "a file", mode=0o400)
    write(root / "linked", "two names")
    write(root / "linked too", "another file now")
    (root / "link").symlink_to("elsewhere")
    os.utime(root / "link", ns=(MOMENT, MOMENT), follow_symlinks=False)
    (root / "dir").chmod(0o700)
    settle(root, at=10)


def seen(root: Path) -> Seen:
    """Everything about a tree that a restore has to do with, and which names belong to one inode."""
    found: Seen = {}
    inodes: dict[int, str] = {}
    for path in sorted([root, *root.rglob("*")]):
        info = path.lstat()
        name = str(path.relative_to(root))
        content: object = None
        if stat.S_ISREG(info.st_mode):
            content = (path.read_bytes(), inodes.setdefault(info.st_ino, name))
        elif stat.S_ISLNK(info.st_mode):
            content = path.readlink()
        found[name] = (oct(info.st_mode), info.st_uid, info.st_mtime_ns, content)
    return found
