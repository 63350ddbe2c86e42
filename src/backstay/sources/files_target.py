"""Writes restored files, directories and links below one directory, and never outside of it.

`TargetDirectory` says why nothing below it can lead elsewhere.
"""

from __future__ import annotations

import os
import stat
from itertools import count
from pathlib import Path
from typing import Final

from backstay.core.names import printable
from backstay.core.syncfs import sync_filesystem
from backstay.errors import InvalidRequest, NotFound, RestoreFailed
from backstay.repository.nodes import Node
from backstay.sources.attributes import Attributes
from backstay.sources.directory_descriptors import PATH_ONLY, open_path, reopen_directory
from backstay.sources.guard import NOTHING_GUARDED, Guard
from backstay.sources.kernel import CLOSED, filesystem_type, raise_descriptor_limit
from backstay.sources.pending_file import BeforeNaming
from backstay.sources.restore_errors import failure, reason
from backstay.sources.source import Problem
from backstay.sources.target_directory import TEMPORARY, TargetDirectory

# procfs, sysfs, cgroup 1 and 2, debugfs, devpts, securityfs: writable for root, but no place for files
_HOLDS_NO_FILES: Final = frozenset({0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x64626720, 0x1CD1, 0x73636673})


def new_run() -> str:
    """What marks the temporary files of one run."""
    return os.urandom(6).hex()


class FilesTarget:
    """The directory that a restore writes into.

    `problems` collects what could not be applied without making the restore fail, such as an owner.
    """

    def __init__(
        self,
        root: Path,
        *,
        numeric_ids: bool = False,
        owners: bool | None = None,
        specials: bool | None = None,
        allow_root: bool = False,
        run: str = "",
        before_naming: BeforeNaming | None = None,
        guard: Guard = NOTHING_GUARDED,
    ) -> None:
        """`owners` and `specials` (device nodes) default to what only root may do; `allow_root` permits `/` itself.

        `run`, 12 hex digits, marks temporary files, so that another process can tell whose they are. `before_naming`
        is called before a file appears under its name. `guard` knows the directories that must not go.
        """
        self._written: dict[int, int] = {}  # a descriptor of each device that was written to, CLOSED for the root's
        is_root = os.geteuid() == 0
        if b"\0" in os.fsencode(root):
            raise InvalidRequest("cannot restore there", cause="no directory has a name with a zero byte in it")
        self.root = Path(os.path.realpath(root))  # a symlink to the target is followed here, once
        self.problems: list[Problem] = []
        self.specials = is_root if specials is None else specials
        self.attributes = Attributes(owners=is_root if owners is None else owners, numeric_ids=numeric_ids)
        self.before_naming = before_naming
        self.guard = guard
        self._allow_root = allow_root
        self._run = (run or new_run()).encode()
        self._numbers = count()
        raise_descriptor_limit()

    def check(self, *, is_written: bool = True) -> None:
        """Raise if this place cannot take a restore; changes nothing.

        `is_written` says that the root itself will be written to, and does not only lead to what will.
        """
        if self.root == Path("/") and not self._allow_root:
            raise InvalidRequest(
                "refusing to restore into /", hint="choose a directory with --to, or allow it explicitly"
            )
        place = self.root
        while not (there := os.path.lexists(place)) and place != place.parent:
            place = place.parent
        if not there or not place.is_dir():
            raise InvalidRequest(
                f"cannot restore into {_shown(self.root)}", cause=f"{_shown(place)} is not a directory"
            )
        if is_written:
            self._check_writable(place)

    def _check_writable(self, place: Path) -> None:
        title = f"cannot restore into {_shown(self.root)}"
        hint = "choose a directory that you may write to"
        try:
            fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise RestoreFailed(title, cause=f"{_shown(place)}: {reason(error)}", hint=hint) from error
        try:
            if filesystem_type(fd) in _HOLDS_NO_FILES:
                raise RestoreFailed(title, cause=f"{_shown(place)} is the kernel's own and holds no files", hint=hint)
            if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
                raise RestoreFailed(title, cause=f"{_shown(place)} lies on a read-only file system", hint=hint)
        finally:
            os.close(fd)
        if not os.access(place, os.W_OK | os.X_OK, effective_ids=True):
            raise RestoreFailed(title, cause=f"no permission to write to {_shown(place)}", hint=hint)

    def open_root(self, create: bool, *, leads_on: bool = False) -> TargetDirectory:
        """The root itself; with `create` it is made, and closed to other users (0700) until a node says otherwise.

        When it only `leads_on` it need not be readable.
        """
        fd = os.open("/", PATH_ONLY | os.O_DIRECTORY)
        for name in map(os.fsencode, self.root.parts[1:]):
            fd = self._descend(fd, name, create=create)
        try:
            opened = reopen_directory(fd, writing=create, leads_on=leads_on)
            return TargetDirectory(self, opened.fd, b"", writing=create, mode=opened.mode)
        except OSError as error:
            raise failure(error, b"", "open") from error
        finally:
            os.close(fd)

    def _descend(self, parent: int, name: bytes, *, create: bool) -> int:
        """Open one component of the root's own path; closes the parent."""
        try:
            return open_path(parent, name, create=create)
        except FileNotFoundError as error:
            if create:
                raise failure(error, b"", "create") from error
            raise NotFound(f"{_shown(self.root)} does not exist", hint="choose another directory") from error
        except OSError as error:
            raise failure(error, b"", "create" if create else "open") from error
        finally:
            os.close(parent)

    def sync(self) -> None:
        """Make everything written so far durable, in one call for each file system."""
        directory = self.open_root(create=False)
        try:
            for fd in {**self._written, os.fstat(directory.fd).st_dev: directory.fd}.values():
                sync_filesystem(fd)
        except OSError as error:
            raise failure(error, b"", "sync") from error
        finally:
            directory.close()
            self._forget_written()

    def writes_to(self, device: int, fd: int, *, is_root: bool) -> None:
        """A directory of this device was opened to be written into; the descriptor is the caller's."""
        if device not in self._written:
            self._written[device] = CLOSED if is_root else os.dup(fd)  # else a disk could not be unmounted

    def _forget_written(self) -> None:
        while self._written:
            _, fd = self._written.popitem()
            if fd != CLOSED:
                os.close(fd)

    def __del__(self) -> None:
        self._forget_written()

    def unmade(self, node: Node) -> str | None:
        """Why an item is never made here; None for one that can be."""
        if stat.S_ISSOCK(node.mode):
            return "sockets are not restored; the program that listens on it makes a new one"
        if (stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode)) and not self.specials:
            return "device nodes are restored by root only"
        return None

    def place(self, path: bytes) -> bytes:
        """The absolute path of one that is relative to the root."""
        root = os.fsencode(self.root)
        return root.rstrip(b"/") + b"/" + path if path else root

    def report(self, path: bytes, message: str) -> None:
        """Add to `problems`; safe from any thread."""
        self.problems.append(Problem(path, message))

    def temporary_name(self) -> bytes:
        """A name that nothing else uses."""
        return b"%s%s-%x" % (TEMPORARY, self._run, next(self._numbers))


def _shown(path: Path) -> str:
    return printable(os.fsencode(path))
