"""Verification of WAL: every object is what its name says, and base backups find what makes them consistent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from backstay.core.events import EventSink, Progress, Started
from backstay.core.pipeline import Workers
from backstay.core.quantities import format_count, plural
from backstay.errors import CorruptedBackup, ObjectNotFound
from backstay.operations.mysql.binlog_archive import BinlogArchive, StoredLog
from backstay.operations.verify.notes import Notes
from backstay.operations.wal.bases import Base, base_of, is_base
from backstay.operations.wal.coverage import WalCoverage, run_with
from backstay.operations.wal.needs import needed_wal
from backstay.repository.format import wal_name
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.wal.store import StoredFile, owner_of, whole_of
from backstay.sources.postgres.timelines import path_of

Sample: TypeAlias = Callable[[dict[str, int]], dict[str, int]]  # chooses which of some objects are read
_AT_ONCE: Final = 64 << 20  # bytes of objects that are read at the same time
_OBJECT_HINT: Final = (
    "put it back from a copy; else nothing behind it can be recovered from before it: `backstay pg windows`"
)
_BASE_HINT: Final = "put it back from a copy; else make a base backup, and delete this one, which cannot be recovered"
_LOG_HINT: Final = "put it back from a copy; else `backstay mysql windows` shows what can be recovered without it"
_CONTRADICTS: Final = "is stored whole with other bytes than this part of it: two servers wrote it"
_PART_HINT: Final = "find out which server had been acknowledged; recoveries take the whole file"
_FOREIGN_HINT: Final = "find out what put it there, and remove it"


@dataclass(slots=True)
class WalChecks:
    """Of what some snapshots say and of the stored objects. `objects` and `read` count what was looked at and read."""

    repository: Repository
    notes: Notes
    events: EventSink
    objects: int = 0
    read: int = 0
    _bases: list[Base] = field(default_factory=list)
    _coverage: dict[int, WalCoverage] = field(default_factory=dict)

    def run(self, manifests: Iterable[Manifest], sample: Sample, *, everything: bool) -> None:
        """All logs that are stored, or only what makes the base backups among the snapshots consistent."""
        bases = self._look(manifests)
        if bases:
            self.notes.check("completeness", self._completeness)
        elif not everything:
            return
        if everything and (logs := self._binary_logs()):
            self.notes.check("completeness", lambda: self._whole_logs(logs))
        found = self.repository.wal.objects()
        if not everything:
            needed = needed_wal(self.repository, self._readable)
            found = {name: size for name, size in found.items() if name in needed}
        if found:
            self.notes.check("integrity", lambda: self._integrity(found, sample))

    def _look(self, manifests: Iterable[Manifest]) -> int:
        """Take note of the base backups among some snapshots; how many there are."""
        for manifest in filter(is_base, manifests):
            try:
                self._bases.append(base_of(manifest))
            except CorruptedBackup as error:
                self.notes.find("completeness", f"snapshot {manifest.id}", error)
        return len(self._bases)

    @property
    def _readable(self) -> list[Manifest]:
        """The base backups of which note was taken."""
        return [base.manifest for base in self._bases if base.manifest is not None]

    def _completeness(self) -> str:
        """Each base backup must find the WAL from its start to its end."""
        for base in self._bases:
            missing = self._missing(base)
            if missing is not None:
                told = f"WAL {missing} of {base.name} is not there, or not whole: it is not consistent without that"
                self.notes.find("completeness", f"snapshot {base.snapshot}", told, _BASE_HINT)
        return f"WAL of {plural(len(self._bases), 'base backup')}"

    def _binary_logs(self) -> list[BinlogArchive]:
        """Of all servers of which one is stored."""
        wal = self.repository.wal
        return [found for system in wal.systems() if (found := BinlogArchive.load(wal, system)).logs]

    def _whole_logs(self, archives: Iterable[BinlogArchive]) -> str:
        """A file of a binary log whose end is stored must be there from its beginning on."""
        files = 0
        for archive in archives:
            for log in archive.logs.values():
                files += 1
                self._whole_log(archive, log)
        return f"{plural(files, 'file')} of binary logs"

    def _whole_log(self, archive: BinlogArchive, log: StoredLog) -> None:
        try:
            lost = archive.lost(log)
        except (CorruptedBackup, ObjectNotFound) as error:
            self.notes.find("completeness", f"binary log {log.file}", error, _LOG_HINT)
            return
        if lost:
            told = f"{', '.join(lost)} of it is not there, or not whole"
            self.notes.find("completeness", f"binary log {log.file}", told, _LOG_HINT)

    def _integrity(self, found: Mapping[str, int], sample: Sample) -> str:
        """Names must be ours; what is chosen of the objects is read, decrypted and compared with its name."""
        wal = self.repository.wal
        for name in found:
            if not wal.is_name(name):
                self.notes.find("integrity", name, "a foreign object lies in the repository", _FOREIGN_HINT)
        chosen = sample({name: size for name, size in found.items() if wal.is_name(name)})
        self.objects = len(found)
        self._read_all(chosen)
        self._compare_parts(chosen, found)
        return f"{format_count(len(chosen))} of {plural(len(found), 'WAL object')} read"

    def _read_all(self, chosen: Mapping[str, int]) -> None:
        if not chosen:
            return
        self.events(Started(operation="read WAL", total_files=len(chosen), total_bytes=sum(chosen.values())))
        done = 0
        with Workers(self.repository.environment.threads, "wal") as workers:
            results = workers.ordered(self._check, chosen, weigh=chosen.__getitem__, limit=_AT_ONCE)
            for name, error in zip(chosen, results, strict=True):
                if error is not None:
                    self.notes.find("integrity", name, f"{self._told(name)} {error}", _OBJECT_HINT)
                self.read, done = self.read + 1, done + chosen[name]
                self.events(Progress(files=self.read, bytes=done, current=name))

    def _compare_parts(self, chosen: Iterable[str], found: Mapping[str, int]) -> None:
        """A part that lies beside its whole file must hold the same."""
        wal, superseded = self.repository.wal, defaultdict[str, set[str]](set)
        for name in chosen:
            if (whole := whole_of(name)) is not None and whole in found:
                superseded[whole].add(name)
        for whole, names in superseded.items():
            owner = owner_of(whole)
            assert owner is not None
            try:
                data = wal.read(*owner, StoredFile(whole=True))
            except (CorruptedBackup, ObjectNotFound):
                continue  # told where it is read itself, or removed with its parts
            for part in wal.contradicting(*owner, data, wal.find(*owner).parts):
                if (name := wal_name(*owner, part)) in names:
                    self.notes.find("integrity", name, f"{self._told(name)} {_CONTRADICTS}", _PART_HINT)

    def _check(self, name: str) -> str | None:
        """What is wrong with an object."""
        try:
            self.repository.wal.check_stored(name)
        except ObjectNotFound:
            return "is missing"
        except CorruptedBackup as error:
            return f"is damaged: {error.cause or error}"
        return None

    def _told(self, name: str) -> str:
        """What an object is: a file of a cluster, by its names, or the record of a name."""
        owner = owner_of(name)
        if owner is None:
            return "the record of a cluster's name"
        system, file = owner
        names = sorted({base.name for base in self._bases if base.system == system})
        return f"WAL {file} of {', '.join(names) or f'cluster {system}'}"

    def _missing(self, base: Base) -> str | None:
        """The first segment that a base backup lacks."""
        coverage, path = self._covered(base), path_of(base.timeline, None)
        run = run_with(coverage.runs(path), base.start_lsn)
        reach = base.start_lsn if run is None else run.end
        if reach >= base.stop_lsn:
            return None
        return coverage.file(path, reach // base.segment_size)

    def _covered(self, base: Base) -> WalCoverage:
        if base.system not in self._coverage:
            self._coverage[base.system] = WalCoverage.load(
                self.repository.wal, base.system, segment_size=base.segment_size
            )
        return self._coverage[base.system]
