"""Write a data directory that recovers to a target by itself: the base backup, the WAL that leads there, and settings.

Order: files, tablespaces, WAL, settings, and `global/pg_control` last: without it no server starts, so that a restore
that was cut short is never taken for a whole one.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from backstay.core.events import EventSink, Finished, Progress, Started, ignore
from backstay.core.names import printable
from backstay.errors import BackstayError, CorruptedBackup, InsufficientSpace, RestoreConflict, RestoreFailed
from backstay.operations.cluster_files import DATA, TABLESPACES
from backstay.operations.pg_plan import RecoveryPlan, WalFile
from backstay.operations.restore import RestoreOptions, RestoreResult, run_restore
from backstay.operations.walk import Item, walk
from backstay.repository.nodes import Node
from backstay.repository.repository import Repository
from backstay.repository.trees import find_node
from backstay.sources.kernel import sync_filesystem
from backstay.sources.postgres.manifest import ManifestFile, write_manifest
from backstay.sources.postgres.recovery import FETCH, SETTINGS, SIGNAL, STAGED, STANDBY, fetch_script, settings

CONTROL: Final = b"global/pg_control"
MANIFEST: Final = "backup_manifest"
_LINKS: Final = b"pg_tblspc"
_MAP: Final = b"tablespace_map"
_READ: Final = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRestoreResult:
    """What was written; sizes in bytes. `tablespaces` are the places of those outside of the data directory."""

    files: int
    bytes: int
    wal_files: int
    wal_bytes: int
    tablespaces: tuple[Path, ...]
    problems: tuple[str, ...]


def restore_cluster(
    repository: Repository,
    plan: RecoveryPlan,
    target: Path,
    *,
    tablespaces: Path | None = None,
    port: int | None = None,
    parallel: int | None = None,
    events: EventSink = ignore,
) -> ClusterRestoreResult:
    """Restore into a directory that is empty or not there. Tablespaces go below `tablespaces` (beside the target).

    With `port` the server will listen on another one than that of the backup.

    Raises RestoreConflict before anything is written, RestoreFailed, CorruptedBackup, InsufficientSpace.
    """
    places = _places(plan, target, tablespaces)
    for place in (target, *places.values()):
        require_empty(place)
    return _ClusterRestore(repository, plan, target, places, port, parallel, events).run()


def require_empty(place: Path) -> None:
    """Raises RestoreConflict unless a directory is empty or not there."""
    try:
        found = sorted(os.listdir(place))
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise RestoreConflict(
            f"{place} is no directory", cause="a file is in the place", hint="choose another"
        ) from None
    except OSError as error:
        raise RestoreFailed(f"cannot look into {place}", cause=error.strerror or str(error)) from error
    if not found:
        return
    running = "postmaster.pid" in found
    if not running and (STAGED in found or ("PG_VERSION" in found and not (place / "global" / "pg_control").exists())):
        raise RestoreConflict(
            f"{place} holds a restore that was not finished, nothing was written",
            cause="it has no global/pg_control, or its WAL was not recovered yet",
            hint="if nobody needs it, remove the directory and restore again",
        )
    raise RestoreConflict(
        f"{place} is not empty, nothing was written",
        cause="a server runs in it, or was not stopped properly" if running else f"it holds {', '.join(found[:5])}",
        hint="restore to another directory, or move this one away" + (" once the server is stopped" if running else ""),
    )


def _places(plan: RecoveryPlan, target: Path, parent: Path | None) -> dict[bytes, Path]:
    """Where each tablespace goes, by its oid. Never where it lay: the server of the backup may be using that."""
    above = parent if parent is not None else target.with_name(f"{target.name}.tablespaces")
    return {b"%d" % oid: above.absolute() / str(oid) for oid in plan.base.tablespaces}


class _Chooser:
    """All but some paths, or nothing but some."""

    def __init__(self, paths: frozenset[bytes], *, only: bool) -> None:
        self._paths, self._only = paths, only

    def selects(self, path: bytes, is_dir: bool) -> bool:
        return (path in self._paths) == self._only or (is_dir and self._only)

    def may_contain(self, path: bytes) -> bool:
        return not self._only or any(wanted.startswith(path.rstrip(b"/") + b"/") for wanted in self._paths)


class _ClusterRestore:
    """One run; its methods are the stages in order."""

    def __init__(
        self,
        repository: Repository,
        plan: RecoveryPlan,
        target: Path,
        places: dict[bytes, Path],
        port: int | None,
        parallel: int | None,
        events: EventSink,
    ) -> None:
        self.repository, self.plan, self.target, self.places = repository, plan, target, places
        self.port, self.parallel, self.events = port, parallel, events
        self.root = b"/" + DATA
        self.problems: list[str] = []
        self.files = self.bytes = 0

    def run(self) -> ClusterRestoreResult:
        links = {self.root + b"/" + _LINKS + b"/" + oid for oid in self.places}
        left = {self.root + b"/" + name for name in (CONTROL, _MAP, STANDBY.encode(), SIGNAL.encode())}
        late = frozenset({*left, *links})
        self._restore(self.root, self.target, _Chooser(late, only=False))
        for oid, place in self.places.items():
            self._told(partial(self._make, place.parent), "make the directory of tablespaces")
            self._restore(b"/" + TABLESPACES + b"/" + oid, place, _Chooser(frozenset(), only=False))
            self._told(partial(self._link, oid, place), "link a tablespace")
        self._told(self._write_wal, "stage the WAL")
        self._told(self._write_settings, "write the settings")
        control = _Chooser(frozenset({self.root + b"/" + CONTROL}), only=True)
        self._restore(self.root, self.target, control, conflict_is_fine=True)
        self._told(self._write_manifest, "write the manifest")
        self._told(self._sync, "make it durable")
        self.events(Finished(operation="restore"))
        return ClusterRestoreResult(
            files=self.files,
            bytes=self.bytes,
            wal_files=len(self.plan.segments),
            wal_bytes=self.plan.wal_bytes,
            tablespaces=tuple(self.places.values()),
            problems=tuple(self.problems),
        )

    # -- files

    def _restore(self, path: bytes, place: Path, chooser: _Chooser, *, conflict_is_fine: bool = False) -> None:
        options = RestoreOptions(
            path=path,
            chooser=chooser,
            conflict="overwrite" if conflict_is_fine else "fail",
            parallel=self.parallel,
        )
        result: RestoreResult = run_restore(self.repository, self.plan.manifest, place, options, events=self.events)
        if result.errors:
            first = result.errors[0]
            raise RestoreFailed(
                f"{len(result.errors)} files of the cluster could not be restored to {place}",
                cause=f"{first.path}: {first.message}",
                hint=f"the directory is not usable: remove {place}, mend the cause and restore again",
            )
        self.files += result.files
        self.bytes += result.bytes
        self.problems += [f"{printable(problem.path)}: {problem.message}" for problem in result.problems]

    def _make(self, place: Path) -> None:
        """A directory above tablespaces, which the server must be able to enter; one that is there stays as it is."""
        if not place.exists():
            place.mkdir(0o700, parents=True)
            self._own(place)

    def _link(self, oid: bytes, place: Path) -> None:
        link = self.target / _LINKS.decode() / oid.decode()
        link.symlink_to(place)
        self._own(link)

    # -- WAL

    def _write_wal(self) -> None:
        plan, directory = self.plan, self.target / STAGED
        directory.mkdir(0o700)
        self._own(directory)
        self.events(Started(operation="stage the WAL", total_files=len(plan.segments), total_bytes=plan.wal_bytes))
        for done, file in enumerate(plan.segments):
            data = self._read(file).ljust(plan.base.segment_size, b"\0")
            if len(data) != plan.base.segment_size:
                raise CorruptedBackup(f"WAL segment {file.name} has {len(data)} bytes")
            self._write(directory / file.name, data)
            self.events(Progress(files=done + 1, bytes=(done + 1) * plan.base.segment_size, current=file.name))
        for file in plan.histories:
            self._write(directory / file.name, self._read(file))
        if plan.segments:
            self._write(directory / FETCH, fetch_script(plan.segments[-1].name).encode())

    def _read(self, file: WalFile) -> bytes:
        return self.repository.wal.read(self.plan.base.system, file.name, file.stored)

    def _write_settings(self) -> None:
        lines = settings(self.plan.target.settings(), timeline=self.plan.path.timeline, port=self.port)
        place = self.target / SETTINGS
        there = place.read_bytes() if place.exists() else b""
        self._write(place, there + lines.encode())
        self._write(self.target / SIGNAL, b"")

    def _write(self, place: Path, data: bytes) -> None:
        """A file that belongs to whom the data directory belongs to."""
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
        self._own(place)

    def _own(self, place: Path) -> None:
        if os.geteuid() == 0:
            owner = self.target.stat()
            os.chown(place, owner.st_uid, owner.st_gid, follow_symlinks=False)

    # -- the manifest

    def _write_manifest(self) -> None:
        """What pg_verifybackup compares with: checksums of the snapshot, or of what was written where it has none."""
        base = self.plan.base
        data = write_manifest(
            list(self._manifest_files()),
            version=int(base.version.partition(".")[0]),
            system=base.system,
            timeline=base.timeline,
            start=base.start_lsn,
            stop=base.stop_lsn,
        )
        self._write(self.target / MANIFEST, data)

    def _manifest_files(self) -> Iterator[ManifestFile]:
        for path, node in self._nodes():
            if stat.S_ISREG(node.mode):
                digest = node.sha256 or _sha256(os.fsencode(self.target) + b"/" + path)
                yield ManifestFile(path, node.size, node.mtime_ns / 1e9, digest)

    def _nodes(self) -> Iterator[tuple[bytes, Node]]:
        """The files by their paths below the data directory, with those of tablespaces where their links lead."""
        reader, places = self.repository.reader, {DATA: b""}
        places |= {TABLESPACES + b"/" + oid: _LINKS + b"/" + oid + b"/" for oid in self.places}
        for within, prefix in places.items():
            top = find_node(self.plan.manifest.root, b"/" + within, reader)
            for visit in walk(top.content, reader) if top is not None and top.content is not None else ():
                path = prefix + visit.path.lstrip(b"/")
                if isinstance(visit, Item) and path not in (_MAP, STANDBY.encode(), SIGNAL.encode()):
                    yield path, visit.node

    def _sync(self) -> None:
        for place in (self.target, *self.places.values()):
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            try:
                sync_filesystem(descriptor)
            finally:
                os.close(descriptor)

    @staticmethod
    def _told(work: Callable[[], None], what: str) -> None:
        """Do a step; OSError as the error that says what to do."""
        try:
            work()
        except OSError as error:
            kind: type[BackstayError] = (
                InsufficientSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else RestoreFailed
            )
            raise kind(f"cannot {what}", cause=f"{error.filename}: {error.strerror}") from error


def _sha256(path: bytes) -> bytes:
    digest = hashlib.sha256()
    with Path(os.fsdecode(path)).open("rb") as file:
        while data := file.read(_READ):
            digest.update(data)
    return digest.digest()
