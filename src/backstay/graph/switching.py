"""Put new files in the place of old ones, all or none, also when a crash comes in between.

What lies in the control directory `.backstay` of the directory, and what a crash leaves:

1. `staging/N`: the new files, each written and flushed to the disk. A crash leaves them, and they are removed the next
   time: the old state.
2. `journal.json` with the state `switch` names every file; it is durable before the first is touched. From here on the
   new state is decided: a crash leaves some files old and some new, and the next time the rest is switched too.
3. Each old file gets a second name in `replaced/MOMENT/`, then the new one is renamed over it. No path is ever without
   a file.
4. The directories are flushed, then the journal is removed.

When a file cannot be switched, the journal gets the state `undo` before the first is put back; a crash from there on
ends in the old state.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from backstay.errors import RestoreConflict, RestoreFailed
from backstay.graph.anchored import Anchored
from backstay.graph.model import output_path

CONTROL: Final = ".backstay"
STAGING: Final = f"{CONTROL}/staging"
REPLACED: Final = f"{CONTROL}/replaced"
JOURNAL: Final = f"{CONTROL}/journal.json"
_NO_LINKS: Final = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EXDEV)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One file to switch: `staged` below STAGING, whose inode number is `inode`; `old` if something lies at `path`."""

    path: str
    staged: str
    inode: int
    old: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """What is being switched, and in which direction; what is replaced goes below REPLACED/`moment`."""

    state: Literal["switch", "undo"]
    moment: str
    changes: tuple[Change, ...]


class Switching:
    """The steps for one directory; its caller holds the lock. Raises OSError where not said otherwise."""

    def __init__(self, files: Anchored) -> None:
        self._files = files

    def recover(self) -> None:
        """Finish or undo what a crash left. Raises RestoreFailed if that is not possible."""
        journal = self._read()
        try:
            if journal is not None:
                self._forward(journal) if journal.state == "switch" else self._back(journal)
        except OSError as error:
            raise RestoreFailed(
                f"an earlier restore into {self._files.root} was cut short, and cannot be brought to its end",
                cause=_told(error),
                hint="mend the cause and run the restore again",
            ) from error
        self.clear()

    def switch(self, changes: tuple[Change, ...], moment: str) -> None:
        """Let the new files count. Raises RestoreFailed, and then all files are the old ones."""
        self._files.sync(f"{STAGING}/{change.staged}" for change in changes)
        journal = Journal(state="switch", moment=moment, changes=changes)
        try:
            self._write(journal)
            self._forward(journal)
        except OSError as error:
            self._write(Journal(state="undo", moment=moment, changes=changes))
            self._back(journal)
            raise RestoreFailed(
                f"cannot put the restored files into {self._files.root}: the old ones are back",
                cause=_told(error),
                hint="mend the cause and run the same restore again",
            ) from error

    def clear(self) -> None:
        """Remove what was staged and did not come to count; nothing while a journal says that it still will."""
        if self._files.lstat(JOURNAL) is not None:
            return
        shutil.rmtree(self._files.root / STAGING, ignore_errors=True)

    # -- the steps

    def _forward(self, journal: Journal) -> None:
        for change in journal.changes:
            staged, kept = f"{STAGING}/{change.staged}", _kept(journal, change)
            if self._files.lstat(staged) is None:
                continue  # a crash came after it was switched
            found = self._files.lstat(change.path)
            if found is not None and stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(errno.EISDIR, "a directory lies where the file belongs", change.path)
            if found is not None and self._files.lstat(kept) is None:
                self._keep(change.path, kept)
            self._files.move(staged, change.path)
        self._end(journal)

    def _back(self, journal: Journal) -> None:
        for change in reversed(journal.changes):
            kept = _kept(journal, change)
            now, old = self._files.lstat(change.path), self._files.lstat(kept)
            ours = now is not None and now.st_ino == change.inode
            if old is not None and (now is None or ours):
                self._files.move(kept, change.path)
            elif old is None and ours and not change.old:
                self._files.unlink(change.path)
        self._end(journal)
        shutil.rmtree(self._files.root / REPLACED / journal.moment, ignore_errors=True)

    def _keep(self, path: str, kept: str) -> None:
        try:
            self._files.link(path, kept)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self._files.move(path, kept)  # a file system without second names: the path is empty for a moment

    def _end(self, journal: Journal) -> None:
        touched = [change.path for change in journal.changes]
        self._files.sync([*touched, *(kept for c in journal.changes if self._files.lstat(kept := _kept(journal, c)))])
        self._files.unlink(JOURNAL)
        self._files.sync([JOURNAL])

    # -- the journal

    def _read(self) -> Journal | None:
        if self._files.lstat(JOURNAL) is None:
            return None
        try:
            with self._files.open(JOURNAL) as file:
                document = json.load(file)
            changes = tuple(Change(**change) for change in document["changes"])
            journal = Journal(state=document["state"], moment=document["moment"], changes=changes)
            _check(journal)
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            raise RestoreConflict(
                f"{self._files.root / JOURNAL} is not what a restore wrote",
                cause=str(error),
                hint="look which files in the directory are wrong, then remove it",
            ) from error
        return journal

    def _write(self, journal: Journal) -> None:
        """The journal appears whole, under its name, or not at all."""
        new = self._files.root / f"{JOURNAL}.new"
        with new.open("w") as file:
            json.dump(asdict(journal), file)
            file.flush()
            os.fsync(file.fileno())
        self._files.move(f"{JOURNAL}.new", JOURNAL)
        self._files.sync([JOURNAL])


def _check(journal: Journal) -> None:
    """Raise ValueError, TypeError for a journal that would lead elsewhere, or nowhere."""
    if journal.state not in ("switch", "undo"):
        raise ValueError(f"its state is {journal.state!r}")
    if "/" in output_path(journal.moment):
        raise ValueError(f"its moment is {journal.moment!r}")
    for change in journal.changes:
        output_path(change.path)
        if not (change.staged.isascii() and change.staged.isdigit()) or type(change.inode) is not int:
            raise ValueError(f"it names the staged file {change.staged!r}")


def _kept(journal: Journal, change: Change) -> str:
    return f"{REPLACED}/{journal.moment}/{change.path}"


def _told(error: OSError) -> str:
    text = error.strerror or str(error)
    return f"{error.filename}: {text}" if error.filename else text


def is_own(path: str) -> bool:
    """Whether a path lies in the control directory."""
    return path.split("/", 1)[0] == CONTROL


def control_directory(root: Path) -> Path:
    """The control directory, made if it is not there; raises RestoreConflict if something else has its name."""
    control = root / CONTROL
    control.mkdir(exist_ok=True, mode=0o700)
    if control.is_symlink() or not control.is_dir():
        raise RestoreConflict(f"{control} is no directory", cause="a restore keeps there what is not complete yet")
    return control
