"""Legal holds: write-once records, of which the newest says whether a snapshot must not go.

**A hold outweighs a drop.** Who drops looks for a hold first, and who holds looks for a drop first and once more
afterwards; so both are there only if the hold was stored before the drop. Whoever sees such a drop sees the hold as
well, as long as drops are listed before holds: for everybody the snapshot still exists.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final, Literal

import msgspec

from backstay.core.clock import Clock
from backstay.errors import (
    BackstayError,
    CorruptedBackup,
    HoldViolation,
    ObjectExists,
    ObjectUnreadable,
    UnsupportedFormat,
)
from backstay.repository.format import HOLDS, RecordKind, hold_name
from backstay.repository.keys.keyring import Keyring
from backstay.storage.backend import StorageBackend
from backstay.storage.copies import retrieve_valid

_NAME: Final = re.compile(r"holds/([0-7][0-9a-hjkmnp-tv-z]{25})\.(\d{6})")


class HoldRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """holds/<id>.<n>: from here on the snapshot is held, or no more. The highest n counts."""

    snapshot: str
    number: int
    state: Literal["held", "cleared"]
    set_ns: int
    reason: str


class HoldStore:
    """The holds of a repository."""

    def __init__(self, backend: StorageBackend, keyring: Keyring) -> None:
        self._backend, self._keyring = backend, keyring
        self._known: dict[str, HoldRecord] = {}  # records never change

    def held(
        self, among: Iterable[str] | None = None, on_damage: Callable[[str, BackstayError], None] | None = None
    ) -> dict[str, HoldRecord | None]:
        """The snapshots that are held, all of them or those among some, each with the record that says so.

        None is a record that cannot be read, and goes to `on_damage`: in doubt a snapshot is held.
        """
        wanted = None if among is None else set(among)
        found: dict[str, HoldRecord | None] = {}
        for snapshot, number in self._newest().items():
            if wanted is None or snapshot in wanted:
                record = self._read(snapshot, number, on_damage)
                if record is None or record.state == "held":
                    found[snapshot] = record
        return found

    def set(self, snapshot: str, *, held: bool, reason: str, clock: Clock) -> bool:
        """Let a snapshot be held from now on, or no more; False if it was so before."""
        state: Literal["held", "cleared"] = "held" if held else "cleared"
        while True:
            number = self._newest().get(snapshot, 0)
            known = self._read(snapshot, number) if number else None
            if (known.state if known is not None else None if number else "cleared") == state:
                return False
            if self._added(HoldRecord(snapshot, number + 1, state, clock.now_ns(), reason)):
                return True

    def explain(self, snapshot: str, reason: str) -> bool:
        """Give a hold another reason, since when it is held stays; False if it has this one, or nothing holds it."""
        while True:
            number = self._newest().get(snapshot, 0)
            known = self._read(snapshot, number) if number else None
            if known is None or known.state != "held" or known.reason == reason:
                return False
            if self._added(msgspec.structs.replace(known, number=number + 1, reason=reason)):
                return True

    def _added(self, record: HoldRecord) -> bool:
        """Whether the record was stored; else somebody was faster, and what holds now is to be read again."""
        name = hold_name(record.snapshot, record.number)
        try:
            self._backend.store(name, self._keyring.seal(RecordKind.HOLD, record))
        except ObjectExists:
            return False
        return True

    def require_free(self, snapshots: Iterable[str]) -> None:
        """Raises HoldViolation if one of the snapshots is held."""
        for snapshot, record in sorted(self.held(snapshots).items()):
            why = "its record cannot be read" if record is None else record.reason
            raise HoldViolation(
                f"snapshot {snapshot} is held",
                cause=why or "no reason was given",
                hint=f"if you may, clear it with `backstay hold clear {snapshot}`",
            )

    def decode(self, name: str, data: bytes) -> HoldRecord:
        """A record from its stored bytes. Raises CorruptedBackup, UnsupportedFormat."""
        record = self._keyring.open(data, RecordKind.HOLD, HoldRecord)
        if hold_name(record.snapshot, record.number) != name:
            raise CorruptedBackup(f"{name} is another hold")
        return record

    def _newest(self) -> dict[str, int]:
        newest: dict[str, int] = {}
        for info in self._backend.list(HOLDS):
            if match := _NAME.fullmatch(info.name):
                newest[match[1]] = max(newest.get(match[1], 0), int(match[2]))
        return newest

    def _read(
        self, snapshot: str, number: int, on_damage: Callable[[str, BackstayError], None] | None = None
    ) -> HoldRecord | None:
        name = hold_name(snapshot, number)
        if name in self._known:
            return self._known[name]
        try:
            record = retrieve_valid(self._backend, name, lambda data: self.decode(name, data))
        except (CorruptedBackup, UnsupportedFormat, ObjectUnreadable) as error:
            if on_damage is not None:
                on_damage(name, error)
            return None
        self._known[name] = record
        return record
