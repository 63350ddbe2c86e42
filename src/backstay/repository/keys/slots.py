"""The key slots of a repository as objects: list, add, remove, and notice a lost one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import msgspec

from backstay.codec.digest import sha256
from backstay.core.clock import Clock
from backstay.core.ids import Random, is_digest
from backstay.errors import (
    BackstayError,
    CorruptedBackup,
    InvalidRequest,
    NotFound,
    ObjectExists,
    ObjectNotFound,
    ObjectUnreadable,
    StorageRefused,
    UnsupportedFormat,
)
from backstay.repository.format import RecordKind, slot_name, slot_removal_name
from backstay.repository.keys.keyring import Keyring
from backstay.storage.backend import StorageBackend
from backstay.storage.copies import retrieve_valid
from backstay.trust.secrets import Secret
from backstay.trust.slots import Argon2Cost, Slot, open_note, unwrap, wrap


class SlotRemoval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """keys/removed/<sha256>: this slot was removed on purpose."""

    slot: bytes
    removed_ns: int


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """One slot for people: its name, kind, creation time and note, and whether it can open this repository.

    `removed`: a record says that it is removed, but it is there.
    """

    id: str
    kind: str
    created: str
    note: str
    opens: bool = True
    removed: bool = False


class SlotStore:
    """Adds and removes wrapped copies of the root key; data is never rewritten."""

    def __init__(self, backend: StorageBackend, keyring: Keyring) -> None:
        self._backend, self._keyring = backend, keyring

    @staticmethod
    def read_all(backend: StorageBackend) -> Iterator[tuple[str, Slot | BackstayError]]:
        """Every slot object, or what is wrong with it; needs no key."""
        for info in sorted(backend.list("keys/slots/"), key=lambda found: found.name):
            try:
                data = backend.retrieve(info.name)
                if not info.name.endswith(sha256(data).hex()):
                    raise CorruptedBackup(f"{info.name} was changed", cause="its bytes do not match its name")
                yield info.name, Slot.decode(data)
            except (CorruptedBackup, UnsupportedFormat, ObjectUnreadable) as error:
                yield info.name, error
            except ObjectNotFound:
                continue  # removed since the listing

    def add(
        self,
        secret: Secret,
        header: bytes,
        *,
        note: str,
        created: str,
        cost: Argon2Cost | None = None,
        random: Random = os.urandom,
    ) -> str:
        """Let one more secret open the repository; the slot's id. `header` is the SHA-256 of repo.json.

        Raises InvalidRequest for one that opens it already: whoever removes one of two equal slots would believe
        that the secret is worth nothing any more. A slot whose removal is on record is no such one.
        """
        known = next((known for known in self._opened_by(secret) if not self.was_removed(bytes.fromhex(known))), None)
        if known is not None:
            raise InvalidRequest(
                "this password or key opens the repository already",
                cause=f"it is that of key slot {known[:8]}",
                hint="choose another one; `backstay key list` shows what there is",
            )
        return self.add_first(secret, header, note=note, created=created, cost=cost, random=random)

    def add_first(
        self,
        secret: Secret,
        header: bytes,
        *,
        note: str,
        created: str,
        cost: Argon2Cost | None = None,
        random: Random = os.urandom,
    ) -> str:
        """The same for a repository that is being created: no other slot is its own, and its place may not exist."""
        slot = wrap(secret, self._keyring.root, header, created=created, note=note, cost=cost, random=random)
        data = slot.encode()
        digest = sha256(data)
        self._backend.store(slot_name(digest), data)
        return digest.hex()

    def opened_by(self, secret: Secret) -> str | None:
        """The id of the slot of this repository that a secret opens, if there is one."""
        return next(self._opened_by(secret), None)

    def _opened_by(self, secret: Secret) -> Iterator[str]:
        for name, slot in self.read_all(self._backend):
            if isinstance(slot, BackstayError):
                continue
            try:
                opened = unwrap(slot, secret)
            except CorruptedBackup:  # it opens nothing any more, and `verify` tells of it
                continue
            if opened is not None and opened[0] == self._keyring.root:
                yield name.rpartition("/")[2]

    def list(self) -> Sequence[SlotInfo]:
        """All slots; a damaged one is shown as such."""
        slots = [self._info(name, slot) for name, slot in self.read_all(self._backend)]
        removed = {digest.hex() for digest in self.returned()}  # looked at last: the count of `remove` depends on it
        return [replace(slot, removed=slot.id in removed) for slot in slots]

    def _info(self, name: str, slot: Slot | BackstayError) -> SlotInfo:
        ident = name.rpartition("/")[2]
        if isinstance(slot, BackstayError):
            return SlotInfo(ident, "damaged", "", str(slot), opens=False)
        try:
            note = open_note(self._keyring.root, slot)
        except CorruptedBackup:
            return SlotInfo(ident, slot.kind, slot.created, "(not a slot of this repository)", opens=False)
        return SlotInfo(ident, slot.kind, slot.created, note)

    def digests(self) -> tuple[bytes, ...]:
        """The slots that exist, as snapshots record them."""
        names = (info.name.rpartition("/")[2] for info in self._backend.list("keys/slots/"))
        return tuple(sorted(bytes.fromhex(name) for name in names if is_digest(name)))

    def remove(self, ident: str, clock: Clock) -> None:
        """Remove a slot, named by a prefix of its id. Raises NotFound, InvalidRequest for a vague id or the last key.

        Order: the removal is recorded, the slots that no record removes are counted again, then the slot goes. Of
        several removals at once each sees the record of those that counted before it, so that they do not take the
        last slots together. A record is never taken back: who removes the same slot may have counted on it. A crash
        between, or a refusal, leaves a slot that can be removed again.
        """
        slots = self.list()
        slot = _chosen(ident, slots)
        _require_another(slot, slots)
        digest = bytes.fromhex(slot.id)
        self._record_removal(digest, clock)
        _require_another(slot, self.list())
        self._backend.delete(slot_name(digest))

    def remove_from(self, copy: StorageBackend) -> None:
        """Remove the slots from a copy that were removed here while it was not at hand.

        One that is here still stays: its removal was begun, and may have been refused. So do all of them where the copy
        has no other that opens the repository.
        """
        here, slots = set(self.digests()), SlotStore(copy, self._keyring).list()
        there = {slot: bytes.fromhex(slot.id) for slot in slots if is_digest(slot.id)}
        gone = {slot: digest for slot, digest in there.items() if digest not in here and self.was_removed(digest)}
        if any(slot.opens and not slot.removed for slot in there.keys() - gone.keys()):
            for digest in gone.values():
                with suppress(StorageRefused):  # as long as it is there, `verify` tells of it
                    copy.delete(slot_name(digest))

    def _record_removal(self, digest: bytes, clock: Clock) -> None:
        data = self._keyring.seal(RecordKind.SLOT_REMOVAL, SlotRemoval(digest, clock.now_ns()))
        try:
            self._backend.store(slot_removal_name(digest), data)
        except ObjectExists:
            if not self.was_removed(digest):  # damaged: it would tell nobody
                self._backend.store(slot_removal_name(digest), data, overwrite=True)

    def lost(self, expected: tuple[bytes, ...]) -> Sequence[bytes]:
        """Slots that a snapshot recorded and that are gone without a removal record."""
        present = set(self.digests())
        return [digest for digest in expected if digest not in present and not self.was_removed(digest)]

    def returned(self) -> Sequence[bytes]:
        """Slots that are there, although a genuine record says that they were removed."""
        names = (info.name.rpartition("/")[2] for info in self._backend.list("keys/removed/"))
        recorded = {bytes.fromhex(name) for name in names if is_digest(name)}
        return [digest for digest in self.digests() if digest in recorded and self.was_removed(digest)]

    def unreadable_removals(self) -> Iterator[tuple[str, BackstayError]]:
        """Records of removed slots that say nothing any more, and what is foreign among them."""
        for info in self._backend.list("keys/removed/"):
            leaf = info.name.rpartition("/")[2]
            if not is_digest(leaf):
                yield info.name, CorruptedBackup("a foreign object lies among the records of removed key slots")
                continue
            try:
                self._require_removal(bytes.fromhex(leaf))
            except (ObjectNotFound, CorruptedBackup, ObjectUnreadable) as error:
                yield info.name, error

    def was_removed(self, digest: bytes) -> bool:
        """Whether a genuine record says so."""
        try:
            self._require_removal(digest)
        except (ObjectNotFound, CorruptedBackup, ObjectUnreadable):
            return False
        return True

    def _require_removal(self, digest: bytes) -> None:
        retrieve_valid(self._backend, slot_removal_name(digest), lambda data: self.check_removal(digest, data))

    def check_removal(self, digest: bytes, data: bytes) -> None:
        """Raises CorruptedBackup unless this is a genuine record that the slot was removed."""
        if self._keyring.open(data, RecordKind.SLOT_REMOVAL, SlotRemoval).slot != digest:
            raise CorruptedBackup("it says that another slot was removed")


def _chosen(ident: str, slots: Sequence[SlotInfo]) -> SlotInfo:
    found = [slot for slot in slots if slot.id.startswith(ident)]
    if not ident:
        raise InvalidRequest(
            "the id of the key slot is empty",
            cause="a text without characters names no slot",
            hint="`backstay key list` shows the slots there are",
        )
    if not found:
        raise NotFound(
            f"there is no key slot {ident}",
            cause=f"none of the {len(slots)} ids begins so",
            hint="`backstay key list` shows the slots there are",
        )
    if len(found) > 1:
        raise InvalidRequest(
            f"{ident} stands for {len(found)} key slots", cause="their ids begin alike", hint="give more of the id"
        )
    return found[0]


def _require_another(chosen: SlotInfo, slots: Sequence[SlotInfo]) -> None:
    others = [slot for slot in slots if slot.opens and slot.id != chosen.id]
    if not others:
        raise InvalidRequest(
            "this is the only key slot that opens the repository",
            cause="nobody could open it any more",
            hint="add another first",
        )
    if all(slot.removed for slot in others):
        raise InvalidRequest(
            f"key slot {chosen.id[:8]} was not removed",
            cause="records say of all others that they are removed, perhaps by somebody at this moment",
            hint="add a password or key that is to stay with `backstay key add`, also one that is there already, then "
            "remove this slot again",
        )
