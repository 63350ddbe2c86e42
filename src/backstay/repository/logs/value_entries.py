"""Entries of the values log, and their limits (docs/format.md, "Values")."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from backstay.codec.digest import sha256
from backstay.core.ids import is_ulid
from backstay.errors import CorruptedBackup
from backstay.repository.format import VALUES, values_name

NONCE_BYTES: Final = 16
SMALL_VALUE: Final = 128 << 10  # bytes; values up to this size lie in the log itself
MAX_METADATA: Final = 64 << 10  # bytes of one value's metadata as canonical JSON
MAX_INLINE: Final = 64 << 20  # bytes of all values in one entry
MAX_REMOVES: Final = 1 << 20  # values that one entry removes
MAX_NUMBER: Final = 1 << 53
IS_JSON: Final = 1  # a flag: the value was given as JSON, and its bytes are the canonical form
_NAME: Final = re.compile(rf"{VALUES}([0-9]{{8,16}})")


class InlineValue(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A value that lies in the log; `metadata` is a JSON object in canonical form."""

    sha256: bytes
    size: int
    flags: int
    metadata: bytes | None
    data: bytes


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The state after entry `covers` is the tree of `snapshot`.

    `nonces` are those of the entries that it covers: who stored another one under such a number came too late.
    `intents` are the snapshots about to refer to values that had not come to be.
    """

    snapshot: str
    covers: int
    nonces: tuple[bytes, ...]
    intents: tuple[str, ...]


class ValuesEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step of the log: values added, here or by the whole tree of a snapshot, removed; or what protects them.

    `made_ns` is in nanoseconds since 1970. A `snapshot` that does not exist adds nothing.
    """

    number: int
    nonce: bytes
    made_ns: int
    adds: tuple[InlineValue, ...] = ()
    snapshot: str | None = None
    removes: tuple[bytes, ...] = ()
    intent: str | None = None
    checkpoint: Checkpoint | None = None

    def check(self) -> None:
        """Raises CorruptedBackup for what no writer can have written."""
        name = values_name(self.number)
        if not 0 < self.number < MAX_NUMBER or len(self.nonce) != NONCE_BYTES:
            raise CorruptedBackup(f"{name} has an impossible number or nonce")
        for value in self.adds:
            _check_value(name, value)
        if sum(value.size for value in self.adds) > MAX_INLINE or len(self.removes) > MAX_REMOVES:
            raise CorruptedBackup(f"{name} declares absurd sizes")
        if any(len(digest) != 32 for digest in self.removes):
            raise CorruptedBackup(f"{name} removes what cannot be a value")
        if any(not is_ulid(ident) for ident in (self.snapshot, self.intent) if ident is not None):
            raise CorruptedBackup(f"{name} names an impossible snapshot")
        if self.checkpoint is not None:
            _check_checkpoint(name, self.number, self.checkpoint)


def _check_value(name: str, value: InlineValue) -> None:
    if value.size != len(value.data) or value.size > SMALL_VALUE or len(value.metadata or b"") > MAX_METADATA:
        raise CorruptedBackup(f"{name} holds a value of an absurd size")
    if sha256(value.data) != value.sha256:
        raise CorruptedBackup(f"{name} holds a value whose bytes do not match its id")


def _check_checkpoint(name: str, number: int, checkpoint: Checkpoint) -> None:
    if not is_ulid(checkpoint.snapshot) or not all(map(is_ulid, checkpoint.intents)):
        raise CorruptedBackup(f"{name} names an impossible snapshot")
    if not 0 < checkpoint.covers < number or any(len(nonce) != NONCE_BYTES for nonce in checkpoint.nonces):
        raise CorruptedBackup(f"{name} is an impossible checkpoint")


def values_number(name: str) -> int | None:
    """The number in an entry's name; None for what somebody else put there."""
    match = _NAME.fullmatch(name)
    number = int(match[1]) if match is not None else 0
    return number if 0 < number < MAX_NUMBER and values_name(number) == name else None
