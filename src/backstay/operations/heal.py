"""Heal a repository from another copy of it: objects that are damaged or lost come back byte for byte.

Every object is read and checked, in either copy, against its name or its seal, before it is written: damage is not
copied. One that is damaged in both, but at different places, is put together from what is right in each.

Order: as when they were written, so that what an interrupted run leaves is better than before and whole in itself. A
second run goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from backstay.core.events import EventSink, Finished, Progress, Started, Warned, ignore
from backstay.core.names import printable
from backstay.core.pipeline import Workers
from backstay.errors import CorruptedBackup, NotFound, ObjectNotFound, StorageMissing
from backstay.operations.repair_result import Findings, LostPath, RepairResult
from backstay.operations.rewrite import DamageSurvey
from backstay.operations.splice import spliced
from backstay.repository.format import pack_name
from backstay.repository.genuine import Genuine, Gone, digest_of
from backstay.repository.index import IndexedPack, read_segment
from backstay.repository.repository import Repository
from backstay.storage.backend import StorageBackend
from backstay.storage.crash_order import in_crash_order, is_transient

READ_AHEAD = 48 << 20  # bytes of objects that are read before their turn


@dataclass(frozen=True, slots=True)
class _Examined:
    """One object of the damaged store: `data` is what to write there, None when nothing is to be done or possible."""

    name: str
    data: bytes | None = None
    is_lost: bool = False


def heal_from_copy(
    repository: Repository,
    damaged: StorageBackend,
    copy: StorageBackend,
    packs: Iterable[str] | None = None,
    *,
    events: EventSink = ignore,
) -> RepairResult:
    """Bring back what `damaged` lost, from `copy`. `repository` must be open on both, such as on a `Mirrored` of them.

    `packs` are names or beginnings of digests; without them every object is looked at. What neither copy has whole is
    a finding, and `lost` names the files that need it. Raises InvalidRequest when one of the stores is no copy.
    """
    return _Healing(repository, damaged, copy, events).run(None if packs is None else list(packs))


class _Healing:
    def __init__(
        self, repository: Repository, damaged: StorageBackend, copy: StorageBackend, events: EventSink
    ) -> None:
        self.repository, self.damaged, self.copy, self.events = repository, damaged, copy, events
        self.genuine = Genuine(repository)
        self.findings = Findings(events)
        self.healed: list[str] = []
        self.lost: list[str] = []

    def run(self, wanted: list[str] | None) -> RepairResult:
        self._make_place()
        ours, theirs = _sizes(self.damaged), _sizes(self.copy)
        if ours:
            self.genuine.require_copy(self.damaged, ours)
        self.genuine.require_copy(self.copy, theirs)
        self.repository.reload_index()
        gone = Gone(self.repository, [name for name in ours if name.startswith("index/")])
        names = in_crash_order(ours.keys() | {name for name in theirs if name in ours or not gone.is_gone(name)})
        chosen = names if wanted is None else _chosen(names, wanted)
        self._heal(chosen, ours, theirs)
        if wanted is None:
            self.lost += sorted(self._known_packs() - set(names))
        lost = self._lost_files()
        self.events(Finished(operation="heal"))
        return RepairResult(objects_healed=tuple(self.healed), lost=tuple(lost), findings=tuple(self.findings.found))

    def _make_place(self) -> None:
        """A store that is gone altogether gets its place, so that what it lacks counts as absent from here on."""
        name = f"probe/{self.repository.environment.random(16).hex()}"
        self.damaged.store(name, b"")
        self.damaged.delete(name)

    def _heal(self, names: list[str], ours: dict[str, int], theirs: dict[str, int]) -> None:
        def size(name: str) -> int:
            return max(ours.get(name, 0), theirs.get(name, 0))

        self.events(Started(operation="heal", total_files=len(names), total_bytes=sum(map(size, names))))
        done = 0
        with Workers(self.repository.environment.threads, "heal") as workers:
            examined = workers.ordered(self._examine, names, weigh=size, limit=READ_AHEAD)
            for count, found in enumerate(examined, 1):
                self._settle(found)
                done += size(found.name)
                self.events(Progress(files=count, bytes=done, current=found.name))

    def _examine(self, name: str) -> _Examined:
        mine = _read(self.damaged, name)
        if mine is not None and self.genuine.is_whole(name, mine) is not False:
            return _Examined(name)
        other = _read(self.copy, name)
        if other is not None and self.genuine.is_whole(name, other) is not False:
            return _Examined(name, other)
        if mine is not None and other is not None:
            made = spliced(mine, other, lambda data: self.genuine.is_whole(name, data) is True)
            if made is not None:
                return _Examined(name, made)
        return _Examined(name, is_lost=mine is not None or other is not None)

    def _settle(self, found: _Examined) -> None:
        if found.data is not None:
            self.damaged.store(found.name, found.data, overwrite=True)
            self.healed.append(found.name)
        elif found.is_lost:
            self.lost.append(found.name)

    # --- what no copy has

    def _known_packs(self) -> set[str]:
        return {pack_name(info.kind, info.digest) for _, info in self.repository.index.packs()}

    def _lost_files(self) -> list[LostPath]:
        """Which files need what is lost, by walking every snapshot; nothing is walked when nothing is lost."""
        for name in self.lost:
            self.findings.add("integrity", name, "no copy has this object whole", "see which files need it: `lost`")
        packs = {digest_of(name) for name in self.lost if name.startswith(("packs/", "meta/"))}
        chunks = {chunk for pack in self._indexed(packs) for chunk in self._unreadable(pack)} if packs else set()
        if not chunks:
            return []
        survey = DamageSurvey(self.repository, chunks)
        live = self.repository.snapshots.live(
            on_damage=lambda name, error: self.events(Warned(message=f"{name}: {error}"))
        )
        return [LostPath(manifest.id, printable(path)) for manifest in live for path in survey.of(manifest).lost]

    def _indexed(self, digests: set[bytes]) -> Iterator[IndexedPack]:
        seen: set[bytes] = set()
        for segment in self.repository.index.segments():
            for pack in read_segment(self.repository.backend, self.repository.keyring, segment).packs:
                if pack.digest in digests and pack.digest not in seen:
                    seen.add(pack.digest)
                    yield pack

    def _unreadable(self, pack: IndexedPack) -> Iterator[bytes]:
        """Chunks of a pack that no place in any copy gives any more: blobs damaged in one may be whole in another."""
        for chunk, *_ in pack.table.chunks():
            try:
                self.repository.reader.chunk(chunk)
            except CorruptedBackup:
                yield chunk


def _sizes(store: StorageBackend) -> dict[str, int]:
    """Every object that belongs to the repository; none where there is no place yet."""
    try:
        return {info.name: info.size for info in store.list() if not is_transient(info.name)}
    except StorageMissing:
        return {}


def _read(store: StorageBackend, name: str) -> bytes | None:
    try:
        return store.retrieve(name)
    except (ObjectNotFound, StorageMissing):
        return None


def _chosen(names: list[str], wanted: list[str]) -> list[str]:
    """The objects whose names, or the digests in them, begin so. Raises NotFound."""
    chosen: set[str] = set()
    for text in wanted:
        start = text.lower()
        found = [name for name in names if name.startswith(start) or name.rpartition("/")[2].startswith(start)]
        if not found or not start:
            raise NotFound(f"no copy has an object {text}", hint="run `backstay verify --read-data` to see names")
        chosen.update(found)
    return in_crash_order(chosen)
