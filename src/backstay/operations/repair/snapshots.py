"""Repair snapshots: accept what is lost, and keep what is left."""

from __future__ import annotations

from functools import cached_property
from typing import Final

from backstay.core.events import EventSink, Progress, Started, Warned, finished
from backstay.core.names import printable
from backstay.core.pipeline import Workers
from backstay.core.quantities import plural
from backstay.errors import BackstayError, CorruptedBackup, NotFound, UnsupportedFormat
from backstay.operations.repair.index import IndexRepair
from backstay.operations.repair.result import Findings, LostPath, RepairResult
from backstay.operations.snapshots.rewrite import LOST_SHOWN, Damage, DamageSurvey, SnapshotRewriter
from backstay.repository.format import RecordKind, pack_name, snapshot_name
from backstay.repository.logs.values import MEND_HINT, LogView
from backstay.repository.packs.stored import stored_packs
from backstay.repository.records import HEADER_BYTES, claimed_epoch, header_epoch
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import REPAIRED_FROM, Manifest, is_values
from backstay.repository.values.fold import fold
from backstay.repository.values.state import ValuesState
from backstay.repository.values.tree import ValueTrees

_DROPS: Final = "drops/"
_KEY_HINT: Final = "put keys/epochs/ back from a copy; to give the snapshot up all the same, name it"
REPAIRED: Final = "repaired"  # the tag of a snapshot without its lost files


class SnapshotRepair:
    """One run over all snapshots, or the wanted ones."""

    def __init__(self, repository: Repository, wanted: set[str] | None, events: EventSink) -> None:
        self.repository, self.wanted, self.events = repository, wanted, events
        self.snapshots, self.clock = repository.snapshots, repository.clock
        self.findings = Findings(events)
        self.held = self.snapshots.holds.held().keys()
        self.dropped: list[str] = []
        self.replaced: list[tuple[str, str]] = []
        self.lost: list[LostPath] = []
        self.live: list[Manifest] = []  # oldest first, new ones included

    def run(self) -> RepairResult:
        index = IndexRepair(self.repository, self.events).run()
        unreadable: list[tuple[str, BackstayError]] = []
        live = self.snapshots.live(on_damage=lambda name, error: unreadable.append((name, error)))
        self.live = list(live)
        self._check_wanted(live, unreadable)
        values = self.repository.values_log.refresh()
        for name, error in unreadable:
            if name.startswith(_DROPS):
                self._tell_damaged_drop(name, error)
            else:
                self._drop_unreadable(name, error, values)
        self._accept_gaps(live)
        survey = DamageSurvey(self.repository)
        damaged_values: list[tuple[Manifest, Damage]] = []
        self.events(Started(operation="repair snapshots", total_files=len(live)))
        for done, manifest in enumerate(live, 1):
            damage = survey.of(manifest)
            if damage and not self.snapshots.dropped([manifest.id]) and self._may_go(manifest.id):
                if is_values(manifest):
                    damaged_values.append((manifest, damage))
                elif self.wanted is None and not self._keyless.isdisjoint(manifest.packs):
                    told = "a key that it needs is missing, and it was left as it is"
                    self.findings.add("completeness", snapshot_name(manifest.id), told, _KEY_HINT)
                else:
                    self._replace(manifest, damage)
            self.events(Progress(files=done, bytes=0, current=manifest.id))
        if damaged_values:
            self._give_up_values(damaged_values)
        finished(self.events, "repair snapshots")
        return RepairResult(
            packs_indexed=index.packs_indexed,
            collections_mended=index.collections_mended,
            segments_removed=index.segments_removed,
            packs_removed=index.packs_removed,
            snapshots_replaced=tuple(self.replaced),
            snapshots_dropped=tuple(self.dropped),
            lost=tuple(self.lost),
            findings=(*index.findings, *self.findings.found),
        )

    def _may_go(self, ulid: str) -> bool:
        """Whether a snapshot that is damaged or lost may be given up: it is wanted so, and nobody holds it."""
        if self.wanted is not None and ulid not in self.wanted:
            return False
        if ulid in self.held:
            hint = f"put what it lacks back from a copy; to give it up, `backstay hold clear {ulid}` first"
            self.findings.add("completeness", snapshot_name(ulid), "it is held, and was left as it is", hint)
            return False
        return True

    def _check_wanted(self, live: list[Manifest], unreadable: list[tuple[str, BackstayError]]) -> None:
        known = {m.id for m in live} | {m.previous for m in live} | {name.rpartition("/")[2] for name, _ in unreadable}
        for ulid in sorted((self.wanted or set()) - known):
            raise NotFound(f"there is no snapshot {ulid}", cause="no other snapshot follows one with this id either")

    def _accept_gaps(self, live: list[Manifest]) -> None:
        """Snapshots that a later one follows, and that vanished without a record."""
        known = set(self.snapshots.taken()) | self.snapshots.dropped()
        gone = {m.previous for m in live if m.previous is not None} - known
        for ulid in sorted(gone):
            if self._may_go(ulid):
                self.snapshots.accept_loss(ulid, "its object was lost", self.clock)
                self.dropped.append(ulid)

    def _drop_unreadable(self, name: str, error: BackstayError, values: LogView) -> None:
        ulid = name.rpartition("/")[2]
        if not self._may_go(ulid):
            return
        if self.wanted is None and self._lacks_key(name):
            self.findings.add("signature", name, error, _KEY_HINT)
            return
        if ulid in values.snapshots or values.damaged:  # all values may be in it
            why = "may rely" if values.damaged else "relies"
            told = f"it was left as it is, because the log of values {why} on it: {error}"
            self.findings.add("completeness", name, told, MEND_HINT)
            return
        self.snapshots.accept_loss(ulid, f"it could not be read: {error}", self.clock)
        self.dropped.append(ulid)
        self.events(Warned(message=f"{name} cannot be read and is dropped: {error}"))

    def _tell_damaged_drop(self, name: str, error: BackstayError) -> None:
        """A snapshot that was deleted is back, and nobody knows whether whoever damaged the record wants that."""
        ulid = name.removeprefix(_DROPS)
        hint = f"`backstay delete {ulid}` deletes the snapshot again; or put the record back from a copy"
        self.findings.add("integrity", name, f"the snapshot is there again, because {error}", hint)

    def _give_up_values(self, damaged: list[tuple[Manifest, Damage]]) -> None:
        """Their log names these snapshots: only a fold can do without what is lost, and with all else that is."""
        view = self.repository.values_log.refresh()
        try:
            ValuesState(self.repository, view, ValueTrees(lambda: self.repository.reader)).require_whole()
        except CorruptedBackup as error:
            for manifest, damage in damaged:
                told = f"{plural(len(damage.lost), 'value')} of it cannot be read, and were left: {error}"
                self.findings.add("completeness", snapshot_name(manifest.id), told, MEND_HINT)
            return
        self.lost += [LostPath(manifest.id, printable(path)) for manifest, damage in damaged for path in damage.lost]
        fold(self.repository, accept_loss=True)

    def _lacks_key(self, name: str) -> bool:
        """Whether the manifest may be whole, and only the key of its epoch is missing."""
        keyring = self.repository.keyring
        data = self.repository.backend.retrieve(name)
        try:
            epoch = header_epoch(data, RecordKind.SNAPSHOT, keyring.repository)
        except (CorruptedBackup, UnsupportedFormat):
            return False
        return self._is_missing(epoch)

    @cached_property
    def _keyless(self) -> set[bytes]:
        """The packs that are there and may be whole, and only the key of their epoch is missing."""
        backend, keyring = self.repository.backend, self.repository.keyring
        epochs = {info.digest: info.epoch for _, info in self.repository.index.packs()}
        found = set()
        for digest, (kind, size) in stored_packs(backend):
            epoch = epochs.get(digest)
            if epoch is None and size > HEADER_BYTES:
                epoch = claimed_epoch(
                    backend.retrieve(pack_name(kind, digest), length=HEADER_BYTES), keyring.repository
                )
            if epoch is not None and self._is_missing(epoch):
                found.add(digest)
        return found

    def _is_missing(self, epoch: int) -> bool:
        """Whether there was such an epoch, and its key is not there. One far beyond the newest never was."""
        keyring = self.repository.keyring
        return epoch <= keyring.current.number + 1 and epoch not in {known.number for known in keyring.epochs}

    def _replace(self, old: Manifest, damage: Damage) -> None:
        """Order: packs, index, new snapshot, drop of the old one; a crash before the drop leaves both."""
        done = next((m for m in self.live if m.consistency.get(REPAIRED_FROM) == old.id), None)
        if done is not None:
            self._drop_replaced(old, done.id)
            return
        self.lost += [LostPath(old.id, printable(path)) for path in damage.lost]
        if damage.nothing_left:
            self.snapshots.drop(old.id, "nothing of it could be read", self.clock)
            self.dropped.append(old.id)
            return
        new = self._rewrite(old, damage)
        self.live.append(new)
        self._drop_replaced(old, new.id)

    def _drop_replaced(self, old: Manifest, new: str) -> None:
        self.snapshots.drop(old.id, f"replaced by {new}, which lacks the lost files", self.clock)
        self.replaced.append((old.id, new))

    def _rewrite(self, old: Manifest, damage: Damage) -> Manifest:
        repository = self.repository
        with repository.begin_session() as session, Workers(repository.environment.threads, "seal") as workers:
            session.start_heartbeat()
            writer = repository.writer(workers)
            try:
                rewritten = SnapshotRewriter(repository, writer, old, damage).run()
                writer.flush()
                packs = writer.take_packs()
                if packs:
                    repository.index.write(packs)
            finally:
                writer.close()
            newest = [m for m in self.live if m.source == old.source and m.host == old.host][-1]
            manifest = rewritten.manifest(
                old,
                id=session.id,
                recorded_ns=self.clock.now_ns(),
                previous=newest.id,
                previous_digest=self.snapshots.digest(newest.id),
                packs=tuple(sorted({pack.digest for pack in packs} | rewritten.packs)),
                slots=repository.slots.digests(),
                tags=(*(tag for tag in old.tags if tag != REPAIRED), REPAIRED),
                description=_described(old, damage),
                consistency={**old.consistency, REPAIRED_FROM: old.id},
            )
            with session.deciding():
                self.snapshots.commit(manifest)
        return manifest


def _described(old: Manifest, damage: Damage) -> str:
    """The old description, with what was left out."""
    shown = ", ".join(printable(path) for path in damage.lost[:LOST_SHOWN])
    more = f" and {len(damage.lost) - LOST_SHOWN} more" if len(damage.lost) > LOST_SHOWN else ""
    note = f"repaired from {old.id}; left out: {shown}{more}" if damage.lost else f"repaired from {old.id}"
    return f"{old.description} ({note})" if old.description else note
