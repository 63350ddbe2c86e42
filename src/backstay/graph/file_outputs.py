"""Outputs as real files below a directory: looked at, staged beside, and switched together at the end."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from backstay.core.clock import Clock, SystemClock
from backstay.errors import (
    CorruptedBackup,
    InsufficientSpace,
    NotFound,
    OutputMismatch,
    OutputsBusy,
    RestoreConflict,
    RestoreFailed,
)
from backstay.graph.anchored import Anchored
from backstay.graph.model import Node
from backstay.graph.outputs import DAMAGED, Here, OutputState, StoredOutputs, stored_states, value_of, wrong_size
from backstay.graph.produced import PIECE, Produced
from backstay.graph.switching import CONTROL, REPLACED, STAGING, Change, Switching, control_directory, is_own
from backstay.graph.values import Values, checked

_MOMENT: Final = "%Y%m%dT%H%M%S.%fZ"
_LOCK: Final = "lock"


class FileOutputs:
    """Files at the `path` of each node's metadata; nodes without one have their output in the repository alone.

    Until `commit` no file changes. What is replaced lies afterwards in `.backstay/replaced/MOMENT`, if history is kept.
    """

    def __init__(self, directory: Path, values: Values, *, clock: Clock | None = None) -> None:
        self.directory = directory
        self._values, self._clock = values, clock or SystemClock()
        self._files = Anchored(directory)
        self._switching = Switching(self._files)
        self._stored = StoredOutputs(values)
        self._guard = threading.Lock()
        self._staged: dict[str, str] = {}
        self._count = 0
        self._lock: int | None = None
        self._history: tuple[bool, int | None, float | None] = (False, None, None)

    @property
    def values(self) -> Values:
        return self._values

    # -- a restore

    def begin(self, *, keep_history: bool, most: int | None, ttl_days: float | None) -> None:
        """Raises OutputsBusy, RestoreConflict, RestoreFailed."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            control = control_directory(self.directory)
            self._lock = _locked(control / _LOCK)
            self._switching.recover()
            (self.directory / STAGING).mkdir()
        except OSError as error:
            self._release()
            raise _failed(f"cannot restore into {self.directory}", error) from error
        except BaseException:
            self._release()
            raise
        self._history = (keep_history, most, ttl_days)

    def commit(self) -> None:
        moment = self._clock.now().strftime(_MOMENT)
        try:
            changes = tuple(self._change(path, staged) for path, staged in sorted(self._staged.items()))
            if changes:
                self._switching.switch(changes, moment)
            self._trim_history(moment)
        except OSError as error:
            raise _failed(f"cannot put the restored files into {self.directory}", error) from error
        finally:
            self._leave()

    def rollback(self) -> None:
        self._leave()

    # -- one node

    def look(self, nodes: Sequence[Node], *, read: bool) -> list[OutputState]:
        in_repository = [node for node in nodes if node.metadata.path is None]
        in_files = [node for node in nodes if node.metadata.path is not None]
        found = dict(zip(in_repository, self._stored.look(in_repository, read=read), strict=True))
        stored = stored_states(self._values, in_files, read=False, packs=read)
        found |= {
            node: state if state.further else self._look_at_file(node, state, read=read)
            for node, state in zip(in_files, stored, strict=True)
        }
        return [found[node] for node in nodes]

    def open(self, node: Node) -> Iterator[bytes]:
        path, key = node.metadata.path, node.hash
        assert key is not None
        if path is None:
            return value_of(self._values, node)
        return checked(self._from_either(key, path), key, f"the output of {node.id}")

    def restore(self, node: Node) -> None:
        path, key = node.metadata.path, node.hash
        assert key is not None
        if path is None:
            self._stored.restore(node)
            return
        try:
            self._stage(node, path, value_of(self._values, node))
        except DAMAGED:
            if self._file_state(node, read=True)[0] != "intact":
                raise
            self._values.store(checked(self._pieces(path), key, f"the file {path}"))

    def take(self, node: Node, produced: Produced) -> None:
        if node.metadata.path is not None:
            self._stage(node, node.metadata.path, produced.pieces())

    # -- files

    def _look_at_file(self, node: Node, stored: OutputState, *, read: bool) -> OutputState:
        here, detail = self._file_state(node, read=read)
        return OutputState(here=here, stored=stored.stored, detail=detail)

    def _file_state(self, node: Node, *, read: bool) -> tuple[Here, str]:
        path, key = node.metadata.path, node.hash
        assert path is not None
        assert key is not None
        try:
            found = self._files.lstat(path)
        except OSError as error:
            return "wrong", f"{path}: {error.strerror or error}"
        if found is None:
            return "missing", f"there is no file {path}"
        if not stat.S_ISREG(found.st_mode):
            return "wrong", f"{path} is no regular file"
        if problem := wrong_size(node, found.st_size):
            return "wrong", f"{path}: {problem}"
        if not read:
            return "unchecked", ""
        try:
            for _ in checked(self._pieces(path), key, f"the file {path}"):
                pass
        except (OSError, OutputMismatch) as error:
            return "wrong", str(error)
        return "intact", ""

    def _from_either(self, key: str, path: str) -> Iterator[bytes]:
        """What the repository has, and from where it fails what the file has; whether they fit is not looked at."""
        given = 0
        try:
            for piece in self._values.open(key):
                given += len(piece)
                yield piece
        except (NotFound, CorruptedBackup):
            if self._files.lstat(path) is None:
                raise
            yield from self._pieces(path, given)

    def _pieces(self, path: str, start: int = 0) -> Iterator[bytes]:
        with self._files.open(path) as file:
            file.seek(start)
            while piece := file.read(PIECE):
                yield piece

    def _stage(self, node: Node, path: str, pieces: Iterator[bytes]) -> None:
        """Write a new file beside, durably; a second one for the same path takes the place of the first."""
        if is_own(path):
            raise RestoreConflict(f"{node.id} cannot be restored to {path}", cause="Backstay keeps its own files there")
        with self._guard:
            self._count += 1
            name = str(self._count)
        try:
            before = self._files.lstat(path)
            with (self.directory / STAGING / name).open("xb") as file:
                for piece in pieces:
                    file.write(piece)
                if before is not None and stat.S_ISREG(before.st_mode):
                    os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _failed(f"cannot write {path}", error) from error
        with self._guard:
            self._staged[path] = name

    def _change(self, path: str, staged: str) -> Change:
        inode = (self.directory / STAGING / staged).stat().st_ino
        return Change(path=path, staged=staged, inode=inode, old=self._files.lstat(path) is not None)

    # -- the control directory

    def _trim_history(self, moment: str) -> None:
        keep, most, ttl_days = self._history
        replaced = self.directory / REPLACED
        if not replaced.is_dir():
            return
        if not keep:
            shutil.rmtree(replaced / moment, ignore_errors=True)
        moments = sorted(entry.name for entry in replaced.iterdir())
        doomed = set(moments[: max(0, len(moments) - most)] if most is not None else ())
        if ttl_days is not None:
            oldest = (self._clock.now() - timedelta(days=ttl_days)).astimezone(UTC)
            doomed |= {name for name in moments if (made := _parsed(name)) is not None and made < oldest}
        for name in doomed:
            shutil.rmtree(replaced / name, ignore_errors=True)

    def _leave(self) -> None:
        self._staged.clear()
        if self._lock is None:
            return
        self._switching.clear()
        control = self.directory / CONTROL
        replaced = self.directory / REPLACED
        try:
            if replaced.is_dir() and not any(replaced.iterdir()):
                replaced.rmdir()
            if [entry.name for entry in control.iterdir()] == [_LOCK]:
                (control / _LOCK).unlink()
                control.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise _failed(f"cannot tidy up {control}", error) from error
        finally:
            self._release()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _locked(path: Path) -> int:
    """A lock that the kernel lets go of however a process ends. Whoever ends a restore removes its file."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        except BlockingIOError as error:
            os.close(lock)
            raise OutputsBusy(
                f"another restore writes into {path.parent.parent}", cause=f"it has locked {path}"
            ) from error
        os.close(lock)  # its holder removed it just now


def _parsed(name: str) -> datetime | None:
    try:
        return datetime.strptime(name, _MOMENT).replace(tzinfo=UTC)
    except ValueError:
        return None


def _failed(what: str, error: OSError) -> RestoreFailed | InsufficientSpace:
    kind = InsufficientSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else RestoreFailed
    return kind(what, cause=error.strerror or str(error))
