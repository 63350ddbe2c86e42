"""The log of content-addressed values: totally ordered, because each number can be created only once.

Who appends reads the log to its end and creates the next number; who loses that race reads what is new, and tries the
number behind it. A checkpoint stands for all entries up to the one that it covers, which are deleted after it. So a
writer whose picture is old may create a number anew that was covered: after creating an entry it looks at the log
again, and an entry that the checkpoint does not know counts for nothing and is written once more.

Readers list, read what is new, and list again until nothing changed in between: what was read then is what the
writers of these entries wrote, and no entry was missed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from threading import RLock
from typing import Final, TypeVar

from backstay.core.clock import Clock
from backstay.core.ids import Random
from backstay.core.pipeline import Workers
from backstay.errors import BackstayError, CorruptedBackup, NotFound, ObjectExists, ObjectNotFound, StorageUnavailable
from backstay.errors import UnsupportedFormat as Unsupported
from backstay.repository.format import VALUES, RecordKind, values_name
from backstay.repository.keys.keyring import Keyring
from backstay.repository.logs.value_entries import NONCE_BYTES, Checkpoint, InlineValue, ValuesEntry, values_number
from backstay.storage.backend import StorageBackend
from backstay.storage.copies import retrieve_valid

Found = TypeVar("Found")
_TRIES: Final = 64  # of listings in a row that differ
_AT_ONCE: Final = 16  # entries read at the same time
MEND_HINT: Final = (
    "`backstay repair packs --from-copy` mends it from a copy; `backstay cas fold --accept-loss` goes on without it"
)


@dataclass(frozen=True, slots=True)
class LogView:
    """The log at one moment: the checkpoint that counts, and the entries behind it, in order.

    `damaged` are numbers behind it whose entries are missing or cannot be read; what they said is not known.
    """

    checkpoint: Checkpoint | None = None
    entries: tuple[ValuesEntry, ...] = ()
    last: int = 0
    damaged: dict[int, BackstayError] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()

    def says_the_same_as(self, other: LogView) -> bool:
        """Whether the log has not changed; damage that was found twice is the same."""
        if self.checkpoint != other.checkpoint or self.entries != other.entries or self.last != other.last:
            return False
        return self.damaged.keys() == other.damaged.keys() and self.foreign == other.foreign

    @property
    def covers(self) -> int:
        return self.checkpoint.covers if self.checkpoint is not None else 0

    @property
    def intents(self) -> tuple[str, ...]:
        """Snapshots about to refer to values, as far as the log knows; most of them exist by now."""
        earlier = self.checkpoint.intents if self.checkpoint is not None else ()
        return (*earlier, *(entry.intent for entry in self.entries if entry.intent is not None))

    @property
    def snapshots(self) -> tuple[str, ...]:
        """Snapshots that hold values, or may come to."""
        base = () if self.checkpoint is None else (self.checkpoint.snapshot,)
        return (*base, *(entry.snapshot for entry in self.entries if entry.snapshot is not None))

    @property
    def inline_bytes(self) -> int:
        """What the entries behind the checkpoint hold, about."""
        return sum(sum(value.size for value in entry.adds) + 32 * len(entry.removes) for entry in self.entries)

    def require_whole(self) -> None:
        """Raises CorruptedBackup if anything is not known: nothing may be removed or left out then."""
        for error in self.damaged.values():
            raise CorruptedBackup("the log of values is damaged", cause=str(error), hint=MEND_HINT) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What an entry is to say; its number, nonce and time come with its turn."""

    adds: tuple[InlineValue, ...] = ()
    snapshot: str | None = None
    removes: tuple[bytes, ...] = ()
    intent: str | None = None
    checkpoint: Checkpoint | None = None


class ValuesLog:
    """Reads and appends. Whoever calls it from several threads holds its `lock`."""

    def __init__(self, backend: StorageBackend, keyring: Keyring, clock: Clock, random: Random) -> None:
        self._backend, self._keyring, self._clock, self._random = backend, keyring, clock, random
        self.lock = RLock()
        self._read: dict[int, ValuesEntry] = {}
        self._expected = 0  # the last number, unless others have written
        self.view = LogView()

    def refresh(self) -> LogView:
        """The log as it is now. Raises CorruptedBackup if its end went, StorageUnavailable."""
        names = self._names()
        for _ in range(_TRIES):
            known = len(self._read)
            view = self._look(names)
            if len(self._read) == known and self._is_as_expected(names, view):
                return self._accept(view)
            again = self._names()
            if names == again or (names < again and not view.damaged and not self._hold_checkpoint(again - names)):
                return self._accept(view)
            names = again
        raise StorageUnavailable("the log of values changes faster than it can be read")

    def look(self, at: Callable[[LogView], Found]) -> Found:
        """What a function makes of the log as it is now; snapshots that a fold drops meanwhile are no damage."""
        view = self.refresh()
        while True:
            try:
                return at(view)
            except (CorruptedBackup, NotFound):
                earlier, view = view, self.refresh()
                if view is earlier:
                    raise

    def _is_as_expected(self, names: set[str], view: LogView) -> bool:
        """Whether nothing is new, and nothing can have been covered and deleted while the listing was made.

        Entries are deleted in ascending order: as long as the first is there, so are the others.
        """
        return (
            not view.damaged
            and view.last == self._expected > 0
            and self._backend.exists(values_name(min(_numbers(names))))
        )

    def _hold_checkpoint(self, names: set[str]) -> bool:
        """Whether any of these entries is a checkpoint, or may be one."""
        numbers = _numbers(names)
        unread = self._read_entries([number for number in numbers if number not in self._read])
        return bool(unread) or any(self._read[number].checkpoint is not None for number in numbers)

    def _accept(self, view: LogView) -> LogView:
        if view.last < self.view.last:
            raise CorruptedBackup(
                "the log of values has become shorter",
                cause=f"it went to entry {self.view.last}, and now ends at {view.last}",
                hint=MEND_HINT,
            )
        self._read = {number: entry for number, entry in self._read.items() if number > view.covers}
        self._expected = view.last
        if not view.says_the_same_as(self.view):  # else it stays the same object: nothing changed
            self.view = view
        return self.view

    def _names(self) -> set[str]:
        return {info.name for info in self._backend.list(VALUES)}

    def _look(self, names: set[str]) -> LogView:
        numbers = {number: name for name in names if (number := values_number(name)) is not None}
        damaged = self._read_entries([number for number in sorted(numbers) if number not in self._read])
        present = [self._read[number] for number in sorted(numbers) if number in self._read]
        checkpoints = [entry for entry in present if entry.checkpoint is not None]
        chosen = min(checkpoints, key=_rank, default=None)
        checkpoint = chosen.checkpoint if chosen is not None else None
        covers = checkpoint.covers if checkpoint is not None else 0
        last = max(numbers, default=0)
        for number in range(covers + 1, last + 1):
            if number not in numbers:
                damaged[number] = CorruptedBackup(f"{values_name(number)} is missing")
        return LogView(
            checkpoint,
            tuple(entry for entry in present if entry.number > covers),
            max(last, covers),
            {number: error for number, error in sorted(damaged.items()) if number > covers},
            tuple(sorted(name for name in names if values_number(name) is None)),
        )

    def _read_entries(self, numbers: list[int]) -> dict[int, BackstayError]:
        """Read what is not known yet; what could not be read, and why. What went meanwhile is left out."""
        damaged: dict[int, BackstayError] = {}
        if len(numbers) > 1 and self._backend.parallel > 1:
            with Workers(min(_AT_ONCE, self._backend.parallel), "values") as workers:
                found = [*workers.ordered(self._try, numbers, weigh=lambda _: 1, limit=2 * _AT_ONCE)]
        else:
            found = [*map(self._try, numbers)]
        for number, entry in zip(numbers, found, strict=True):
            if isinstance(entry, ValuesEntry):
                self._read[number] = entry
            else:
                damaged[number] = entry
        return damaged

    def _try(self, number: int) -> ValuesEntry | BackstayError:
        try:
            return self.read(number)
        except ObjectNotFound as error:  # covered and deleted since it was listed, or lost: the next listing tells
            return CorruptedBackup(f"{values_name(number)} is missing", cause=str(error))
        except (CorruptedBackup, Unsupported) as error:
            return error

    def read(self, number: int) -> ValuesEntry:
        """One entry. Raises CorruptedBackup, ObjectNotFound, UnsupportedFormat."""
        name = values_name(number)
        return retrieve_valid(self._backend, name, partial(self.decode, name))

    def decode(self, name: str, data: bytes) -> ValuesEntry:
        """The entry under a name. Raises CorruptedBackup, UnsupportedFormat."""
        number = values_number(name)
        if number is None:
            raise CorruptedBackup(f"{name} is foreign", cause="no entry of the values log has such a name")
        try:
            entry = self._keyring.open(data, RecordKind.VALUES, ValuesEntry)
            entry.check()
        except CorruptedBackup as error:
            raise CorruptedBackup(f"{name} is damaged", cause=str(error), hint=MEND_HINT) from error
        if entry.number != number:
            raise CorruptedBackup(f"{name} is another entry than its name says", hint=MEND_HINT)
        return entry

    # -- appending

    def append(self, make: Callable[[LogView], Draft | None]) -> ValuesEntry | None:
        """Store what `make` makes of the log as it is, at its end; None if that is nothing.

        It is asked again whenever another writer was faster, and sees every entry before its own. When this returns,
        the entry is durable and counts. A crash leaves it whole or not at all.
        """
        while True:
            draft = self.look(make)
            if draft is None:
                return None
            entry = self._create(draft)
            if entry is not None and self._counts(self.refresh(), entry):
                return entry

    def _create(self, draft: Draft) -> ValuesEntry | None:
        """Take the next number; None if another writer has it."""
        self._keyring.begin_epoch_if_due(self._clock)
        entry = ValuesEntry(
            number=self.view.last + 1,
            nonce=self._random(NONCE_BYTES),
            made_ns=self._clock.now_ns(),
            adds=draft.adds,
            snapshot=draft.snapshot,
            removes=draft.removes,
            intent=draft.intent,
            checkpoint=draft.checkpoint,
        )
        entry.check()
        try:
            self._backend.store(values_name(entry.number), self._keyring.seal(RecordKind.VALUES, entry))
        except ObjectExists:
            found = self._try(entry.number)  # ours, if an earlier try of this very call got through
            if not isinstance(found, ValuesEntry) or found.nonce != entry.nonce:
                return None
        self._read[entry.number] = entry
        self._expected = entry.number
        return entry

    def _counts(self, view: LogView, entry: ValuesEntry) -> bool:
        """Whether an entry was created before its number was covered, or the checkpoint knows it."""
        if entry.number in view.damaged:
            raise StorageUnavailable(f"{values_name(entry.number)} was stored, and is not there")
        if entry.number > view.covers:
            return True
        return view.checkpoint is not None and entry.nonce in view.checkpoint.nonces

    def forget(self, numbers: list[int]) -> None:
        """Delete entries that the checkpoint covers, the first ones first: readers rely on that order."""
        for number in sorted(numbers):
            self._backend.delete(values_name(number))

    def stored_numbers(self) -> list[int]:
        """The numbers of all entries that are stored, those that count for nothing too."""
        return _numbers(self._names())


def _numbers(names: Iterable[str]) -> list[int]:
    return sorted(number for name in names if (number := values_number(name)) is not None)


def _rank(entry: ValuesEntry) -> tuple[int, int]:
    assert entry.checkpoint is not None
    return -entry.checkpoint.covers, entry.number
