"""Write a data directory that recovers to a target by itself: the base backup, the WAL that leads there, and settings.

Order: files, tablespaces, WAL, settings, and `global/pg_control` last: without it no server starts, so that a restore
that was cut short is never taken for a whole one. In an older data directory it is removed first.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

from backstay.core.events import EventSink, finished, ignore
from backstay.core.names import printable
from backstay.core.syncfs import sync_filesystem
from backstay.errors import InvalidRequest, RestoreFailed
from backstay.operations.clusters.configuration import MAIN, Configuration, overrule_places
from backstay.operations.clusters.delta import apply_delta
from backstay.operations.clusters.directory import (
    UNFINISHED,
    begin,
    end,
    own_tablespaces,
    require_empty,
    require_free,
    require_older,
)
from backstay.operations.clusters.files import DATA, TABLESPACES
from backstay.operations.clusters.plan import RecoveryPlan
from backstay.operations.clusters.staging import bring_later, stage_all
from backstay.operations.clusters.written_manifest import LINKS, MAP, WrittenManifest
from backstay.operations.restore.guarded import Guarded
from backstay.operations.restore.run import RestoreOptions, RestoreResult, run_restore
from backstay.operations.snapshots.walk import subtree
from backstay.operations.tiers.cold_packs import THAW_DAYS, ColdPacks, make_readable
from backstay.repository.nodes import EMPTY
from backstay.repository.repository import Repository
from backstay.repository.trees.listings import read_listing
from backstay.sources.files_target import FilesTarget
from backstay.sources.postgres.control_file import CONTROL
from backstay.sources.postgres.lsn import format_lsn
from backstay.sources.postgres.owned_files import OwnedFiles
from backstay.sources.postgres.recovery import SETTINGS, SIGNAL, STANDBY, settings
from backstay.sources.restore_errors import told

WalWay: TypeAlias = Literal["staged", "stream"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaOptions:
    """What a restore onto an older data directory may do, besides to one of the same cluster.

    `tablespaces_in_place` follows the links of the directory: they lead to what is its own.
    """

    other_cluster: bool = False
    tablespaces_in_place: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRestoreOptions:
    """How to write it. Tablespaces go below `tablespaces` (beside the target); the server will listen on `port`.

    With `delta` the target may be an older data directory of the cluster, else it must be empty or not there. The WAL
    is `staged` in it, or a `stream` of it is brought while the server recovers (`serving`). `configuration` is for
    a server whose files lay elsewhere.
    """

    tablespaces: Path | None = None
    port: int | None = None
    parallel: int | None = None
    delta: DeltaOptions | None = None
    wal: WalWay = "staged"
    configuration: Configuration | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterRestoreResult:
    """What is there now; sizes in bytes. `tablespaces` are the places of those outside of the data directory, as they
    will be when the server has recovered.

    `bytes` are those of all files, of which `bytes_kept` were there before; `removed` did not belong there.
    """

    files: int
    bytes: int
    bytes_kept: int
    removed: int
    wal_files: int
    wal_bytes: int
    tablespaces: tuple[Path, ...]
    problems: tuple[str, ...]


def require_target(
    repository: Repository, plan: RecoveryPlan, target: Path, options: ClusterRestoreOptions
) -> dict[bytes, Path]:
    """Where the tablespaces go. Raises RestoreConflict, InvalidRequest for a target that must not be written to."""
    places = _places(plan, target, options.tablespaces)
    for place in (target, *places.values(), *_made(plan)):
        Guarded(repository).refuse_within(bytes(FilesTarget(place).root))
    for made in plan.made:
        require_free(Path(made.place), made.oid, format_lsn(made.lsn))
    if options.delta is None:
        for place in (target, *places.values()):
            require_empty(place)
        return places
    require_older(target, plan.base.system, any_cluster=options.delta.other_cluster)
    return own_tablespaces(
        target,
        places,
        in_place=options.delta.tablespaces_in_place,
        moved=options.tablespaces is not None,
    )


def restore_cluster(
    repository: Repository,
    plan: RecoveryPlan,
    target: Path,
    options: ClusterRestoreOptions = ClusterRestoreOptions(),
    *,
    events: EventSink = ignore,
) -> ClusterRestoreResult:
    """Write a data directory that recovers by itself.

    Raises RestoreConflict and InvalidRequest before anything is written, RestoreFailed, CorruptedBackup,
    InsufficientSpace.
    """
    places = require_target(repository, plan, target, options)
    _require_no_configuration(repository, plan, options.configuration)
    return _ClusterRestore(repository, plan, target, places, options, events).run()


def _places(plan: RecoveryPlan, target: Path, parent: Path | None) -> dict[bytes, Path]:
    """Where each tablespace goes, by its oid. Never where it lay: the server of the backup may be using that."""
    above = parent if parent is not None else target.with_name(f"{target.name}.tablespaces")
    return {b"%d" % oid: above.absolute() / str(oid) for oid in plan.base.tablespaces}


def _made(plan: RecoveryPlan) -> list[Path]:
    """Where the server makes tablespaces while it recovers: that stands in its WAL."""
    return sorted({Path(made.place) for made in plan.made})


def _require_no_configuration(repository: Repository, plan: RecoveryPlan, configuration: Configuration | None) -> None:
    """Raises InvalidRequest when files are given that are in the backup: whose counted would be a guess."""
    if configuration is None:
        return
    _, listing = subtree(plan.manifest.root, b"/" + DATA, repository.reader)
    present = {node.name for node in read_listing(listing or EMPTY, repository.reader)}
    for name in configuration.files:
        if os.fsencode(name) in present:
            raise InvalidRequest(
                f"the backup holds {name} itself",
                cause="configuration from elsewhere is for servers that keep it outside of their data directory",
                hint="restore without it, and edit what was restored",
            )


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
        options: ClusterRestoreOptions,
        events: EventSink,
    ) -> None:
        self.repository, self.plan, self.target, self.places = repository, plan, target, places
        self.options, self.events = options, events
        self.owned = OwnedFiles(target)
        self.made = _made(plan)
        self.root = b"/" + DATA
        self.problems: list[str] = []
        self.manifest = WrittenManifest(
            repository,
            plan,
            self.owned,
            target,
            places,
            configuration=options.configuration,
            threads=options.parallel,
        )
        self.files = self.bytes = self.bytes_kept = self.removed = 0

    def run(self) -> ClusterRestoreResult:
        links = {self.root + b"/" + LINKS + b"/" + oid for oid in self.places}
        left = {self.root + b"/" + name for name in (CONTROL.encode(), MAP)} | {
            self._path(STANDBY),
            self._path(SIGNAL),
        }
        late = frozenset({*left, *links})
        self._make_readable()
        told(self._begin, "begin the restore")
        # Links of tablespaces stay: without them a restore that goes on would not know the places as its own.
        there = {
            link for link in links if (self.target / os.fsdecode(link.removeprefix(self.root + b"/"))).is_symlink()
        }
        self._restore(self.root, self.target, late, spare=frozenset({self._path(UNFINISHED), *there}))
        for oid, place in self.places.items():
            told(partial(self._make, place.parent), "make the directory of tablespaces")
            told(partial(self._link, oid, place), "link a tablespace")  # first: it says whose the place is
            self._restore(b"/" + TABLESPACES + b"/" + oid, place, frozenset(), shared=True)
        for place in self.made:  # where a server that recovers makes a tablespace, it needs a directory of its own
            told(partial(self._make_own, place), "make the directory of a tablespace")
        told(self._write_configuration, "write the configuration")
        told(self._write_wal, "stage the WAL")
        told(self._write_settings, "write the settings")
        told(self.manifest.write, "write the manifest")
        told(self._sync, "make it durable")
        self._write_files(self.root, self.target, _Chooser(frozenset({self._path(CONTROL)}), only=True))
        told(partial(end, self.target), "end the restore")
        finished(self.events, "restore")
        return ClusterRestoreResult(
            files=self.files,
            bytes=self.bytes,
            bytes_kept=self.bytes_kept,
            removed=self.removed,
            wal_files=len(self.plan.segments),
            wal_bytes=self.plan.wal_bytes,
            tablespaces=(*self.places.values(), *self.made),
            problems=tuple(self.problems),
        )

    def _path(self, name: str) -> bytes:
        return self.root + b"/" + name.encode()

    # -- before anything is written

    def _make_readable(self) -> None:
        """Have what lies in the cold tier at hand before anything is removed: a delta shows late what it needs."""
        cold = ColdPacks(self.repository)
        if cold:
            for _, node in self.manifest.files():
                cold.need_file(node)
            need = cold.needed()
            make_readable(self.repository, need, days=THAW_DAYS, wait=True, events=self.events)

    def _begin(self) -> None:
        # Directories above it are made for all to enter, as the server's user is not the one who restores.
        self.target.parent.mkdir(parents=True, exist_ok=True)
        FilesTarget(self.target).open_root(create=True).close()
        begin(self.target, self.plan.base.system)

    # -- files

    def _restore(
        self,
        path: bytes,
        place: Path,
        late: frozenset[bytes],
        *,
        spare: frozenset[bytes] = frozenset(),
        shared: bool = False,
    ) -> None:
        """All files of a directory but those that come `late`: first what is there already, then what is not."""
        settled: set[bytes] = set()
        if self.options.delta is not None:
            delta = apply_delta(
                self.repository,
                self.plan.manifest,
                path,
                place,
                chooser=_Chooser(late, only=False),
                spare=spare,
                shared=shared,
                parallel=self.options.parallel,
                events=self.events,
            )
            settled = delta.settled
            self.files += len(settled)
            self.bytes += delta.bytes_kept + delta.bytes_written
            self.bytes_kept += delta.bytes_kept
            self.removed += delta.removed
            self.problems += delta.problems
        self._write_files(path, place, _Chooser(late | settled, only=False))

    def _write_files(self, path: bytes, place: Path, chooser: _Chooser) -> None:
        options = RestoreOptions(path=path, chooser=chooser, parallel=self.options.parallel)
        result: RestoreResult = run_restore(self.repository, self.plan.manifest, place, options, events=self.events)
        if result.errors:
            first = result.errors[0]
            raise RestoreFailed(
                f"{len(result.errors)} files of the cluster could not be restored to {place}",
                cause=f"{first.path}: {first.message}",
                hint="no server starts there: mend the cause, and go on with --delta",
            )
        self.files += result.files
        self.bytes += result.bytes
        self.problems += [f"{printable(problem.path)}: {problem.message}" for problem in result.problems]

    def _make(self, place: Path) -> None:
        """A directory above tablespaces, which the server must be able to enter; one that is there stays as it is."""
        if not place.exists():
            self.owned.make(place)

    def _make_own(self, place: Path) -> None:
        """An empty directory for the server."""
        self._make(place)
        self.owned.own(place)

    def _link(self, oid: bytes, place: Path) -> None:
        link = self.target / LINKS.decode() / oid.decode()
        if link.is_symlink():
            before = link.parent / link.readlink()
            if before == place:
                return
            self.problems.append(f"tablespace {oid.decode()} lies in {place} now; {before} was left alone")
            link.unlink()
        link.symlink_to(place)
        self.owned.own(link)

    # -- WAL and settings

    def _write_wal(self) -> None:
        stage = bring_later if self.options.wal == "stream" else stage_all
        stage(self.repository, self.plan, self.owned, events=self.events)

    def _write_configuration(self) -> None:
        if self.options.configuration is not None:
            self.options.configuration.write(self.owned)
        elif overrule_places(self.owned):
            told_of = "names data_directory or external_pid_file, or includes files that may"
            self.problems.append(f"{MAIN} {told_of}: lines at its end now give the places of this copy")

    def _write_settings(self) -> None:
        lines = settings(self.plan.target.settings(), timeline=self.plan.path.timeline, port=self.options.port)
        place = self.target / SETTINGS
        there = place.read_bytes() if place.exists() else b""
        self.owned.write(place, there + lines.encode())
        self.owned.write(self.target / SIGNAL, b"")

    def _sync(self) -> None:
        for place in (self.target, *self.places.values(), *self.made):
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
            try:
                sync_filesystem(descriptor)
            finally:
                os.close(descriptor)
