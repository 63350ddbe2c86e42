"""Heal a repository from another copy of it: objects that are damaged or lost come back byte for byte.

Every object is read and checked, in either copy, against its name or its seal, before it is written: damage is not
copied. One that is damaged in both, but at different places, is put together from what is right in each.

Order: as when they were written, so that what an interrupted run leaves is better than before and whole in itself. A
second run goes on where it stopped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from backstay.core.events import EventSink, Progress, Started, Warned, finished, ignore
from backstay.core.names import printable
from backstay.core.pipeline import Workers
from backstay.core.quantities import format_size, plural
from backstay.errors import (
    BackstayError,
    NotFound,
    ObjectFrozen,
    StorageUnavailable,
    TierNotAttached,
)
from backstay.operations.repair.heal_tiers import Sizes, TierView
from backstay.operations.repair.known_loss import (
    INDEX,
    INDEX_HINT,
    OTHER_COPY,
    PACK_HINT,
    SNAPSHOT_HINT,
    KnownLoss,
    Loss,
)
from backstay.operations.repair.result import Findings, LostPath, RepairResult
from backstay.operations.repair.splice import spliced
from backstay.operations.snapshots.lost_chunks import lost_chunks
from backstay.operations.snapshots.rewrite import DamageSurvey
from backstay.repository.checking.genuine import Genuine, Gone, digest_of
from backstay.repository.checking.values import FOLD_HINT
from backstay.repository.format import drop_name, pack_name, snapshot_name
from backstay.repository.repository import Repository
from backstay.storage.addressing import is_addressed
from backstay.storage.backend import StorageBackend
from backstay.storage.crash_order import in_crash_order
from backstay.storage.holdings import held, held_sizes
from backstay.storage.tiered import MOVABLE, RULES

READ_AHEAD = 48 << 20  # bytes of objects that are read before their turn


@dataclass(frozen=True, slots=True)
class _Examined:
    """One object of the damaged store: `data` is what to write there, None when nothing is to be done or possible.

    `is_lost`: no copy has it whole. `is_unread`: it lies there frozen. `is_distant`: it is needed here, and may be
    whole where it cannot be read now. `epoch`: the key without which nobody can tell whether it is whole; then
    `unjudged` is what only the other copy has, and `is_alike` whether both have the same.
    """

    name: str
    data: bytes | None = None
    is_lost: bool = False
    is_unread: bool = False
    is_distant: bool = False
    epoch: int | None = None
    unjudged: bytes | None = None
    is_alike: bool = False


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
    a finding by its name, and `lost` names the files that need it. What is absent from both is known as far as other
    objects tell of it: `known_loss` says what nobody can know.

    Packs of a cold tier stay there: one that is whole there is not brought back, and one that is not comes to the hot
    store, from where the next move takes it. A tier that is not attached, and what is frozen, is a warning.

    An object that the damaged store cannot read is written anew, if the copy has it whole.

    Raises InvalidRequest when one of the stores is no copy, StorageUnavailable when one gives no answer, or when the
    damaged one cannot read an object that the copy has not.
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
        self.distant: list[str] = []
        self.unread: dict[str, int] = {}
        self.notes: dict[str, str] = {}  # packs of the cold tier -> notes of them that were lost
        self.unjudged: list[_Examined] = []
        self.epochs: set[int] = set()  # of which whole objects tell, and which nobody has
        self.tier = TierView.none()

    def run(self, wanted: list[str] | None) -> RepairResult:
        self._make_place()
        ours, theirs = held_sizes(self.damaged), held_sizes(self.copy)
        if ours:
            self.genuine.require_copy(self.damaged, ours)
        self.genuine.require_copy(self.copy, theirs)
        self.repository.reload_index()
        self.tier = TierView.of(self.repository, self.damaged, self.copy, ours, theirs)
        names = self._names(ours, theirs)
        if wanted is not None:
            chosen = _chosen([*names, *self.unread], wanted)
            self.unread = {name: self.unread[name] for name in chosen if name in self.unread}
            self._heal([name for name in chosen if name in names], names)
        else:
            self._heal(in_crash_order(names), names)
        self._judge()
        losses = self._known_losses(names) if wanted is None else None
        self._tell(losses.losses if losses is not None else [])
        self._tell_deleted()
        lost = self._lost_files(losses)
        finished(self.events, "heal")
        return RepairResult(objects_healed=tuple(self.healed), lost=tuple(lost), findings=tuple(self.findings.found))

    def _make_place(self) -> None:
        """A store that is gone altogether gets its place, so that what it lacks counts as absent from here on."""
        name = f"probe/{self.repository.environment.random(16).hex()}"
        self.damaged.store(name, b"")
        self.damaged.delete(name)

    def _names(self, ours: Sizes, theirs: Sizes) -> dict[str, int]:
        """What the damaged store should have, with sizes."""
        gone = Gone(self.repository, [name for name in ours if name.startswith("index/")], _told_later)
        names = dict(ours)
        for name, size in {**self.tier.needed_of(theirs), **theirs}.items():
            if name in ours:
                names[name] = max(size, ours[name])
            elif self.tier.belongs(name) and not gone.is_gone(name):
                names[name] = size
                self._note_if_cold(name, size)
        for name, size in self.tier.cold.items():
            if name in names or gone.is_gone(name):
                continue
            if self.tier.is_attached:
                names[name] = size
            else:
                self.unread[name] = size
        for name in self.tier.cold if not self.tier.is_attached else ():
            if names.pop(name, None) is not None:  # the copy has it hot; that it is not cold as well is not known
                self.unread[name] = self.tier.cold[name]
        return names

    def _note_if_cold(self, name: str, size: int) -> None:
        """A pack that the damaged store had moved, and of which it lost the note, stays where it is."""
        note = self.tier.lost_note(name, size) if name not in self.tier.cold else None
        if note is not None:
            self.tier.cold[name], self.notes[name] = size, note

    def _heal(self, names: list[str], sizes: Sizes) -> None:
        self.events(Started(operation="heal", total_files=len(names), total_bytes=sum(sizes[name] for name in names)))
        done = 0
        with Workers(self.repository.environment.threads, "heal") as workers:
            examined = workers.ordered(self._examine, names, weigh=sizes.__getitem__, limit=READ_AHEAD)
            for count, found in enumerate(examined, 1):
                self._settle(found, sizes[found.name])
                done += sizes[found.name]
                self.events(Progress(files=count, bytes=done, current=found.name))

    def _examine(self, name: str) -> _Examined:
        mine, store, unreadable = None, self.tier.of_damaged(self.damaged, name), None
        try:
            mine = held(store, name)
        except ObjectFrozen:
            return _Examined(name, is_unread=True)
        except StorageUnavailable as error:  # a bad sector, say; should it be more, nothing can be written either
            if store is not self.damaged:
                raise
            unreadable = error
        if mine is not None and self._is_whole(name, mine):
            return _Examined(name)
        is_distant, other = False, None
        try:
            other = held(self.tier.behind(self.copy), name)
        except (ObjectFrozen, TierNotAttached):
            is_distant = True
        if other is not None and self._is_whole(name, other):
            return _Examined(name, other)
        if unreadable is not None:  # it may be whole, so that nobody can say that it is lost
            raise unreadable
        if mine is not None and other is not None and mine != other:
            made = spliced(mine, other, lambda data: self.genuine.is_whole(name, data) is True)
            if made is not None:
                return _Examined(name, made)
        if is_distant:
            return _Examined(name, is_distant=True)
        return self._neither(name, mine, other)

    def _neither(self, name: str, mine: bytes | None, other: bytes | None) -> _Examined:
        """No copy is whole, as far as the keys tell: one may be missing, and another object be told for it."""
        if mine is None and other is None:  # deleted since the listing, unless a note says where it must be
            return _Examined(name, is_lost=name in self.tier.noted and name not in self.tier.there)
        if mine is not None and other is not None and mine != other:
            return _Examined(name, is_lost=True)
        # A digest in the name needs no key to tell damage, and keys themselves need the root key alone.
        needs_key = not is_addressed(name) and not name.startswith("keys/epochs/")
        epoch = self.genuine.lost_epoch(mine or other or b"") if needs_key else None
        return _Examined(
            name, is_lost=True, epoch=epoch, unjudged=other if mine is None else None, is_alike=mine == other
        )

    def _is_whole(self, name: str, data: bytes) -> bool:
        """Not known to be damaged; remembers which keys whole objects need that nobody has."""
        found = self.genuine.is_whole(name, data)
        if found and is_addressed(name) and (epoch := self.genuine.lost_epoch(data)) is not None:
            self.epochs.add(epoch)
        return found is not False

    def _settle(self, found: _Examined, size: int) -> None:
        if found.data is not None:
            self._bring(found.name, found.data)
        elif found.is_unread:
            self.unread[found.name] = size
        elif found.is_distant:
            self.distant.append(found.name)
        elif found.epoch is not None:
            self.unjudged.append(found)
        elif found.is_lost:
            self.lost.append(found.name)
        elif found.name in self.notes:
            self._bring(self.notes[found.name], b"")

    def _bring(self, name: str, data: bytes) -> None:
        self.damaged.store(name, data, overwrite=True)
        self.healed.append(name)

    def _judge(self) -> None:
        """Objects that need a missing key are as good as can be known; those that name another are damaged.

        A key is missing if its number is below that of one that is there, if its record is damaged, if an object that
        is whole by its name was sealed with it, or if several objects say so, each in both copies alike: the number
        in a single one may be what is damaged, and may have been mirrored so.
        """
        keyring = self.repository.keyring
        last = max(epoch.number for epoch in keyring.epochs)
        alike = Counter(found.epoch for found in self.unjudged if found.epoch is not None and found.is_alike)
        self.epochs |= {epoch for epoch, count in alike.items() if count > 1}
        for found in self.unjudged:
            assert found.epoch is not None
            if found.epoch > last and found.epoch not in self.epochs | keyring.damaged.keys():
                self.lost.append(found.name)
            elif found.unjudged is not None:
                self._bring(found.name, found.unjudged)

    # --- what no copy has

    def _known_losses(self, names: Sizes) -> KnownLoss:
        self._restore_notes(names)
        backend = self.repository.backend

        def is_there(name: str) -> bool:
            return name in names or name in self.unread or backend.exists(name)

        known = KnownLoss(self.repository, is_there, frozenset(self.lost), self.epochs)
        known.find()
        return known

    def _restore_notes(self, names: Sizes) -> None:
        """What the cold store has, and neither hot one knows of any more."""
        for _, info in self.repository.index.packs():
            name = pack_name(info.kind, info.digest)
            note = self.tier.lost_note(name, info.size) if name not in names and name not in self.unread else None
            if note is not None:
                self._bring(note, b"")

    def _tell(self, losses: list[Loss]) -> None:
        away = not self.tier.is_attached and self.tier.store is not None
        for name in self.lost:
            self.findings.add("integrity", name, "no copy has this object whole", _hint(name))
        for loss in losses:
            message = loss.message
            if away and loss.name.startswith(MOVABLE):
                message += ", and the cold tier, which may have it, is not attached"
            self.findings.add("integrity", loss.name, message, loss.hint)
        for name in self.distant:
            message = "this object is not whole here, and the copy's cannot be read now: it is frozen, or its tier away"
            self.findings.add("integrity", name, message, "thaw or attach it, and repeat this command")
        self._tell_unread()

    def _tell_unread(self) -> None:
        """A pack that is frozen or away is not lost; it was not looked at either."""
        if self.tier.rule_is_lost and self.tier.store is not None:
            message = f"no copy says any more where the cold tier is, which has {plural(len(self.tier.noted), 'pack')}"
            self.findings.add("integrity", RULES, message, "set it again: `backstay tier set --cold ADDRESS`")
        elif self.unread:
            store = self.tier.store
            size = format_size(sum(self.unread.values()))
            what = f"{plural(len(self.unread), 'pack')} with {size}"
            if store is not None and not self.tier.is_attached:
                message = f"this cold tier is not attached: {what} were not looked at"
                self.findings.warn("integrity", store.address, message, "attach it, and repeat this command")
            else:
                where = self.damaged.url if store is None else store.address
                message = f"{what} are frozen, and were not read"
                self.findings.warn("integrity", where, message, "a restore thaws what it needs")

    def _tell_deleted(self) -> None:
        """The object of a snapshot can come back; that it was deleted is said for ever."""
        back = {name.partition("/")[2] for name in self.healed if name.startswith("snapshots/")}
        dropped = self.repository.snapshots.dropped(back) if back else set()
        counted = set(self.repository.values_log.refresh().snapshots) if dropped else set()
        for ulid in sorted(dropped):
            name, message = snapshot_name(ulid), f"its object is back, but by {drop_name(ulid)} it stays deleted"
            if ulid in counted:
                self.findings.add("completeness", name, f"{message}, although values are in it", FOLD_HINT)
            else:
                self.findings.warn("completeness", name, message)

    def _lost_files(self, losses: KnownLoss | None) -> list[LostPath]:
        """Which files need what is lost, by walking every snapshot; nothing is walked when nothing is lost."""
        names, epochs, is_unindexed = set(self.lost), set[int](), False
        if losses is not None:
            names |= {loss.name for loss in losses.losses}
            epochs = losses.lost_epochs | self.repository.keyring.damaged.keys()
            # A key opened segments too: what has no place is lost then, unless the index is to be repaired first.
            is_unindexed = bool(epochs) or losses.has_unindexed
            is_unindexed = is_unindexed and not any(name.startswith(INDEX) for name in names)
        packs = {digest_of(name) for name in names if name.startswith(("packs/", "meta/"))}
        packs |= {info.digest for _, info in self.repository.index.packs() if info.epoch in epochs}
        chunks = lost_chunks(self.repository, packs) if packs else set()
        if not chunks and not is_unindexed:
            return []
        survey = DamageSurvey(self.repository, chunks)
        live = self.repository.snapshots.live(
            on_damage=lambda name, error: self.events(Warned(message=f"{name}: {error}"))
        )
        return [LostPath(manifest.id, printable(path)) for manifest in live for path in survey.of(manifest).lost]


def _told_later(name: str, error: BackstayError) -> None:
    """A record that no copy has whole is found when all objects are looked at."""


def _hint(name: str) -> str:
    """What to do about an object that is damaged everywhere."""
    hints = {"packs/": PACK_HINT, "meta/": PACK_HINT, "index/": INDEX_HINT, "snapshots/": SNAPSHOT_HINT}
    return next((hint for prefix, hint in hints.items() if name.startswith(prefix)), OTHER_COPY)


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
