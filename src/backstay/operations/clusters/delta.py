"""Make the files of an older data directory those of a snapshot: what is equal stays, and only the rest is written.

Files are compared chunk by chunk with the ids that the snapshot names, never by times. A chunk that differs is written
in its place, so that no second copy of a large table takes room. Where this was cut short lies a mixture, and whoever
calls it sees to it that no server starts there. What is not there at all is left to a restore, which follows.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from backstay.core.events import EventSink, Progress, Started, finished, ignore
from backstay.core.names import printable
from backstay.core.pipeline import Workers
from backstay.errors import CorruptedBackup
from backstay.operations.clusters.stored_files import CHUNK, StoredChunk, StoredFile
from backstay.operations.restore.guarded import Guarded
from backstay.operations.restore.plan import existing_root
from backstay.operations.snapshots.walk import Chooser, Enter, Item, Leave, subtree, walk
from backstay.repository.nodes import Node
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.sources.attributes import Beside
from backstay.sources.files_target import FilesTarget
from backstay.sources.pending_file import write_all
from backstay.sources.restore_errors import failure, reason
from backstay.sources.target_directory import TargetDirectory

_READ: Final = 32 * CHUNK  # bytes read at once: 1 MiB
_UNDER_WAY: Final = 64 << 20  # bytes of files that are being compared
_OPEN_COSTS: Final = 1 << 20  # so many bytes a file counts at least, since each is open meanwhile
_EXISTING: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(slots=True)
class Delta:
    """What was done; sizes in bytes. `settled` are the paths in the snapshot of files that are right now."""

    settled: set[bytes] = field(default_factory=set)
    bytes_kept: int = 0
    bytes_written: int = 0
    removed: int = 0
    problems: list[str] = field(default_factory=list)


def apply_delta(
    repository: Repository,
    manifest: Manifest,
    path: bytes,
    place: Path,
    *,
    chooser: Chooser,
    spare: frozenset[bytes] = frozenset(),
    shared: bool = False,
    parallel: int | None = None,
    events: EventSink = ignore,
) -> Delta:
    """Bring what is in a directory to the state of a subtree of a snapshot, as far as it is there.

    What the snapshot does not hold is removed, but for the paths in `spare`; a `shared` directory may hold what others
    put there, so that only the directories in it are the snapshot's. What `chooser` leaves out is not touched.
    Raises RestoreFailed, InsufficientSpace, CorruptedBackup.
    """
    delta = Delta()
    target = FilesTarget(place, guard=Guarded(repository))
    if existing_root(target) is None:
        return delta
    run = _DeltaRun(repository, manifest, path, target, chooser, spare, delta, shared=shared)
    events(Started(operation="compare"))
    with Workers(parallel or repository.environment.threads, "compare") as workers:
        done = workers.ordered(run.settle, run.files(), weigh=_weight, limit=_UNDER_WAY)
        for compared in done:
            delta.settled.add(compared.path)
            delta.bytes_written += compared.written
            delta.bytes_kept += compared.size - compared.written
            events(Progress(files=len(delta.settled), bytes=delta.bytes_kept + delta.bytes_written))
    finished(events, "compare")
    delta.problems += [f"{printable(problem.path)}: {problem.message}" for problem in target.problems]
    return delta


@dataclass(frozen=True, slots=True)
class _Existing:
    """An open file that is to become what a node says; whoever settles it closes it."""

    fd: int
    path: bytes
    node: Node


@dataclass(frozen=True, slots=True)
class _Compared:
    path: bytes
    size: int
    written: int


def _weight(file: _Existing) -> int:
    return max(file.node.size, _OPEN_COSTS)


@dataclass(slots=True)
class _Level:
    """A directory of the walk as it is in the target; None if it is not there. `names` are those of the snapshot."""

    path: bytes
    directory: TargetDirectory | None
    names: set[bytes] = field(default_factory=set)


class _DeltaRun:
    """The walk on one thread, and the comparing of one file, on any."""

    def __init__(
        self,
        repository: Repository,
        manifest: Manifest,
        path: bytes,
        target: FilesTarget,
        chooser: Chooser,
        spare: frozenset[bytes],
        delta: Delta,
        *,
        shared: bool,
    ) -> None:
        self._reader, self._ids = repository.reader, repository.keyring.chunk_ids
        self._manifest, self._path, self._target = manifest, path, target
        self._chooser, self._spare, self._delta, self._shared = chooser, spare, delta, shared

    # -- the walk

    def files(self) -> Iterator[_Existing]:
        """The files that are there and have to be compared; whatever else is in their way is removed."""
        node, listing = subtree(self._manifest.root, self._path, self._reader)
        if listing is None:
            raise CorruptedBackup(f"{printable(self._path)} is no directory in snapshot {self._manifest.id}")
        levels: list[_Level] = []
        try:
            for visit in walk(listing, self._reader, path=self._path, node=node):
                if isinstance(visit, Enter):
                    levels.append(self._enter(visit, levels[-1] if levels else None))
                elif isinstance(visit, Leave):
                    self._leave(levels.pop(), keep=self._shared and not levels)
                else:
                    levels[-1].names.add(visit.node.name)
                    yield from self._file(levels[-1].directory, visit)
        finally:
            for level in levels:
                if level.directory is not None:
                    level.directory.close()

    def _enter(self, visit: Enter, above: _Level | None) -> _Level:
        if above is None or visit.node is None:
            return _Level(visit.path, existing_root(self._target))
        name, directory = visit.node.name, above.directory
        above.names.add(name)
        if directory is None:
            return _Level(visit.path, None)
        info = directory.lstat(name)
        if info is not None and not stat.S_ISDIR(info.st_mode):
            self._remove(directory, name, info, visit.path)
            info = None
        return _Level(visit.path, None if info is None else directory.child(name, create=False))

    def _leave(self, level: _Level, *, keep: bool) -> None:
        """Remove what does not belong to a directory, unless others may `keep` something there."""
        directory = level.directory
        if directory is None:
            return
        for name in () if keep else directory.names():
            path = level.path + b"/" + name
            if name not in level.names and path not in self._spare:
                info = directory.lstat(name)
                if info is not None:
                    self._remove(directory, name, info, path)
        directory.close()

    def _remove(self, directory: TargetDirectory, name: bytes, info: os.stat_result, path: bytes) -> None:
        """Never what a link leads to: that may be another server's."""
        if stat.S_ISLNK(info.st_mode):
            leads = printable(os.readlink(name, dir_fd=directory.fd))
            self._delta.problems.append(f"{printable(path)} was a link: it is gone, {leads} was left alone")
        directory.remove(name)
        self._delta.removed += 1

    def _file(self, directory: TargetDirectory | None, item: Item) -> Iterator[_Existing]:
        if directory is None or not self._chooser.selects(item.path, False):
            return
        name, node = item.node.name, item.node
        info = directory.lstat(name)
        if info is None:
            return
        # A file of several names may be another directory's too, in which nothing must change.
        if not node.is_file or node.extents is not None or not stat.S_ISREG(info.st_mode) or info.st_nlink > 1:
            self._remove(directory, name, info, item.path)
            return
        try:
            yield _Existing(os.open(name, _EXISTING, dir_fd=directory.fd), item.path, node)
        except OSError as error:
            raise failure(error, item.path, "open") from error

    # -- one file

    def settle(self, file: _Existing) -> _Compared:
        """Make an open file what its node says, and close it."""
        try:
            written = 0
            for number, chunk in self._differing(file):
                written += self._write(file, number, chunk)
            if os.fstat(file.fd).st_size != file.node.size:
                os.ftruncate(file.fd, file.node.size)
            self._target.attributes.apply(
                file.fd,
                file.node,
                lambda what, error: self._target.report(file.path, f"{what}: {reason(error)}"),
                beside=Beside.ANYTHING,
            )
        except OSError as error:
            raise failure(error, file.path, "write") from error
        finally:
            os.close(file.fd)
        return _Compared(file.path, file.node.size, written)

    def _differing(self, file: _Existing) -> Iterator[tuple[int, StoredChunk]]:
        """The chunks, with their numbers, that are not there, or not as they should be."""
        stored = StoredFile(file.node, self._reader)
        buffer = memoryview(bytearray(min(_READ, max(file.node.size, 1))))
        for start in range(0, file.node.size, _READ):
            there = _read(file.fd, buffer, start)
            for at in range(0, min(_READ, file.node.size - start), CHUNK):
                number = (start + at) // CHUNK
                chunk = stored.chunk(number)
                assert chunk is not None
                if at + chunk.length > there or self._ids.of(buffer[at : at + chunk.length]) != chunk.id:
                    yield number, chunk

    def _write(self, file: _Existing, number: int, chunk: StoredChunk) -> int:
        write_all(file.fd, chunk.read(self._reader), number * CHUNK)
        return chunk.length


def _read(fd: int, buffer: memoryview, start: int) -> int:
    """Fill a buffer from a position of a file on; how many bytes there were."""
    done = 0
    while done < len(buffer) and (got := os.preadv(fd, [buffer[done:]], start + done)):
        done += got
    return done
