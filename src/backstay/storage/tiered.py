"""Data packs in a second, colder store; everything else stays in the first.

**The hot store knows everything.** For each pack that was moved it keeps an empty object whose name says the pack's
name and size (`cold/<xx>/<sha256>.<size>`). So a listing is complete, and backups go on, while the cold store is a
disk in a drawer; and a pack that cannot be read is never taken for one that does not exist.

**Each pack is whole in one tier at least, at any moment.** A move is: copy, check what the cold store holds, keep the
note, delete the hot one. Only a move deletes from the hot store, and only a collection deletes from the cold one:
a recall copies back, and leaves the cold object and its note where they are. So nothing has to be locked: two
programs that work in opposite directions cannot take the last two copies away from each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

from backstay.errors import (
    CorruptedBackup,
    ObjectExists,
    ObjectFrozen,
    ObjectNotFound,
    StorageMissing,
    StorageUnavailable,
    TierNotAttached,
)
from backstay.storage.addressing import contradicts_name
from backstay.storage.archive import Archive
from backstay.storage.backend import Buffer, ObjectInfo, StorageBackend
from backstay.storage.cold_store import ColdStore
from backstay.storage.names import check_name, check_prefix
from backstay.storage.wrapper import Wrapper

_Infos: TypeAlias = Iterator[ObjectInfo]  # inside the class `list` is the method

MOVABLE: Final = "packs/"
NOTES: Final = "cold/"
RULES: Final = "tiers/"  # where the cold tier is; `backstay.repository.logs.tiers` reads it
OWN: Final = (NOTES, RULES)  # means something only in this store, so that nobody sees it through this class
_NOTE: Final = re.compile(r"cold/([0-9a-f]{2}/[0-9a-f]{64})\.([0-9]{1,19})")


class Tiered(Wrapper):
    """A hot store with a cold one behind it. Closing it closes both."""

    def __init__(self, hot: StorageBackend, cold: ColdStore) -> None:
        super().__init__(hot)
        self.cold = cold
        self._noted: dict[str, ObjectInfo] = {}  # notes that were seen; they go only with their packs

    # --- as a store ---

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        try:
            return self.inner.retrieve(name, start=start, length=length)
        except ObjectNotFound:
            if self._note(name) is None:
                raise
        return self._retrieve_cold(name, start, length)

    def stat(self, name: str) -> ObjectInfo:
        try:
            return self.inner.stat(name)
        except ObjectNotFound:
            note = self._note(name)
            if note is None:
                raise
        try:
            return self.cold.open().stat(name)
        except (TierNotAttached, StorageMissing):
            return note

    def exists(self, name: str) -> bool:
        return self.inner.exists(name) or self._note(name) is not None

    def list(self, prefix: str = "") -> _Infos:
        check_prefix(prefix)
        # Hot packs before notes: a pack that is moved in between is seen in one of the two.
        found = {info.name: info for info in self.inner.list(prefix) if not info.name.startswith(OWN)}
        if prefix.startswith(MOVABLE) or MOVABLE.startswith(prefix):
            for info in self.noted().values():
                if info.name.startswith(prefix):
                    found.setdefault(info.name, info)
        return iter(found.values())

    def delete(self, name: str) -> None:
        """Raises TierNotAttached when a part of it lies in a store that is not there; deleted later, it is gone."""
        self.inner.delete(name)
        note = self._note(name)
        if note is not None:
            # The note goes last: what is left of a delete that was interrupted is listed, and deleted again.
            self._open_cold().delete(name)
            self.forget(name, note.size)

    def copies(self) -> Sequence[StorageBackend]:
        found = self.inner.copies()
        return [Tiered(copy, self.cold) for copy in found] if len(found) > 1 else (self,)

    def forget_reads(self) -> None:
        super().forget_reads()
        self.cold.forget_reads()

    def archive(self) -> Archive | None:
        """How cold packs are thawed. Raises TierNotAttached."""
        return self._open_cold().archive()

    def sweep_temporaries(self, older_than_s: float) -> int:
        swept = self.inner.sweep_temporaries(older_than_s)
        with suppress(TierNotAttached):
            swept += self._open_cold().sweep_temporaries(older_than_s)
        return swept

    def close(self) -> None:
        self.cold.close()
        self.inner.close()

    # --- where packs are ---

    def noted(self) -> dict[str, ObjectInfo]:
        """All packs that are in the cold tier, some of them in the hot one too, by the hot store's own knowledge."""
        found = dict(filter(None, map(read_note, self.inner.list(NOTES))))
        self._noted = dict(found)
        return found

    def only_cold(self) -> dict[str, ObjectInfo]:
        """The packs that must be read from the cold tier."""
        hot = {info.name for info in self.inner.list(MOVABLE)}
        return {name: info for name, info in self.noted().items() if name not in hot}

    def really_cold(self) -> dict[str, ObjectInfo]:
        """What the cold store itself says that it holds. Raises TierNotAttached."""
        return {info.name: info for info in self._open_cold().list(MOVABLE)}

    def _note(self, name: str) -> ObjectInfo | None:
        """What is noted about a pack, if it was ever moved."""
        if not name.startswith(MOVABLE):
            return None
        if name not in self._noted:
            check_name(name)
            for info in self.inner.list(f"{NOTES}{name.removeprefix(MOVABLE)}."):
                if (found := read_note(info)) is not None:
                    self._noted = {**self._noted, found[0]: found[1]}
        return self._noted.get(name)

    # --- from one tier to the other ---

    def move(self, name: str) -> int:
        """Let a pack be in the cold tier only; its size. Doing it again finishes what was interrupted.

        Raises ObjectNotFound when the pack is gone, or was moved before; CorruptedBackup when the hot one is
        damaged, and is left alone; StorageUnavailable when the cold store does not prove that it has the bytes.
        """
        data = self.inner.retrieve(name)
        if contradicts_name(name, data):
            raise CorruptedBackup(
                f"{name} is damaged, and was not moved",
                cause="its bytes do not match its name",
                hint="mend it with `backstay repair packs`",
            )
        self._place(name, data)
        self.note(name, len(data))
        self.inner.delete(name)
        return len(data)

    def note(self, name: str, size: int) -> None:
        """Say that the cold store has a pack; it must be so."""
        with suppress(ObjectExists):
            self.inner.store(note_name(name, size), b"")

    def forget(self, name: str, size: int) -> None:
        """Say nothing any more about what the cold store has; the hot one must have it."""
        self.inner.delete(note_name(name, size))
        self._noted.pop(name, None)

    def recall(self, name: str) -> int:
        """Let a pack be in the hot tier too; its size. Raises CorruptedBackup, ObjectFrozen, TierNotAttached."""
        data = self._retrieve_cold(name, 0, None)
        if contradicts_name(name, data):
            raise CorruptedBackup(
                f"{name} is damaged in the cold tier",
                cause="its bytes do not match its name",
                hint="put it back there from a copy; else run `backstay repair packs`",
            )
        with suppress(ObjectExists):
            self.inner.store(name, data)
        return len(data)

    def _place(self, name: str, data: bytes) -> None:
        """See that the cold store has exactly these bytes; a torn object of an interrupted move is replaced."""
        cold = self._open_cold()
        try:
            cold.store(name, data)
        except ObjectExists:
            if _has(cold, name, data):
                return
            cold.store(name, data, overwrite=True)
        if not _has(cold, name, data):
            raise StorageUnavailable(
                f"{name} was not moved",
                cause=f"{self.cold.address} does not prove that it holds the bytes that it was given",
                hint="the pack stays in the hot tier; try out the cold one with `backstay check-storage`",
            )

    def _retrieve_cold(self, name: str, start: int, length: int | None) -> bytes:
        try:
            return self._open_cold().retrieve(name, start=start, length=length)
        except StorageMissing as error:  # it was there when it was opened
            raise self.cold.away(str(error)) from error

    def _open_cold(self) -> StorageBackend:
        return self.cold.open()


def _has(cold: StorageBackend, name: str, data: Buffer) -> bool:
    """Whether a store gives these bytes back, or proves by its own checksum that it has them."""
    try:
        return cold.retrieve(name) == data
    except ObjectFrozen:
        archive = cold.archive()
        return archive is not None and archive.holds(name, bytes(data))
    except ObjectNotFound:
        return False


def note_name(name: str, size: int) -> str:
    """The object that says that the cold store has a pack."""
    return f"{NOTES}{name.removeprefix(MOVABLE)}.{size}"


def read_note(info: ObjectInfo) -> tuple[str, ObjectInfo] | None:
    """(name, what is known) of the pack that a note is about; None for what somebody else put there."""
    match = _NOTE.fullmatch(info.name)
    if match is None:
        return None
    name = MOVABLE + match[1]
    return name, ObjectInfo(name=name, size=int(match[2]), modified_ns=info.modified_ns)
