"""Where a repository's cold tier is, and which packs go there: the newest of some write-once records."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import msgspec

from backstay.core.clock import Clock
from backstay.errors import CorruptedBackup, InvalidRequest, ObjectExists, StorageMissing, UnsupportedFormat
from backstay.repository.format import RecordKind, tier_name
from backstay.repository.keys.keyring import Keyring
from backstay.storage.backend import StorageBackend
from backstay.storage.cold_store import MARK, ColdStore, OpenStore
from backstay.storage.copies import retrieve_valid
from backstay.storage.tiered import RULES, Tiered

_NAME: Final = re.compile(r"tiers/(\d{8})")


class TierRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """tiers/<n>: packs older than `after_s` seconds belong at `cold`; None ends the tier. The highest n counts."""

    number: int
    cold: str | None
    after_s: int
    set_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TierRule:
    """What the newest record says; `damage` tells why it cannot be read, and then nothing is known."""

    number: int
    cold: str | None = None
    after_s: int = 0
    damage: str = ""


class TierLog:
    """The records of a repository, in its hot store."""

    def __init__(self, hot: StorageBackend, keyring: Keyring) -> None:
        self._hot, self._keyring = hot, keyring

    def read(self) -> TierRule | None:
        """What holds now; None where there never was a cold tier."""
        numbers = [int(match[1]) for info in self._hot.list(RULES) if (match := _NAME.fullmatch(info.name))]
        if not numbers:
            return None
        number = max(numbers)
        try:
            record = retrieve_valid(self._hot, tier_name(number), lambda data: self.decode(number, data))
        except (CorruptedBackup, UnsupportedFormat) as error:
            return TierRule(number=number, damage=str(error))
        return TierRule(number=number, cold=record.cold, after_s=record.after_s)

    def write(self, cold: str | None, after_s: int, clock: Clock) -> None:
        """Let this hold from now on. Raises InvalidRequest for an address with a password, or a lost race."""
        if cold is not None:
            refuse_password(cold)
        current = self.read()
        number = 1 if current is None else current.number + 1
        record = TierRecord(number, cold, after_s, clock.now_ns())
        try:
            self._hot.store(tier_name(number), self._keyring.seal(RecordKind.TIER_RULE, record))
        except ObjectExists:
            raise InvalidRequest(
                "the cold tier was set by somebody else at the same time",
                cause=f"{tier_name(number)} exists",
                hint="look at it with `backstay tier show`",
            ) from None

    def decode(self, number: int, data: bytes) -> TierRecord:
        """A record from its stored bytes. Raises CorruptedBackup, UnsupportedFormat."""
        record = self._keyring.open(data, RecordKind.TIER_RULE, TierRecord)
        if record.number != number:
            raise CorruptedBackup(f"{tier_name(number)} is another record")
        return record


def refuse_password(address: str) -> None:
    """Raises InvalidRequest for an address that would put a secret into the repository."""
    try:
        secret = urlsplit(address).password
    except ValueError:
        secret = None
    if secret is not None:
        raise InvalidRequest(
            "the address of the cold tier holds a password",
            cause="the repository remembers the address, and others open the repository",
            hint="leave it out: credentials come from the environment or the files of the provider's own tools",
        )


def refuse_cold_tier(store: StorageBackend) -> None:
    """Raises InvalidRequest for a cold tier: what looks like garbage there is needed by a repository elsewhere."""
    try:
        is_cold = store.exists(MARK)
    except StorageMissing:  # there is no place yet
        return
    if is_cold:
        raise InvalidRequest(
            f"{store.url} is the cold tier of a repository",
            cause=f"it holds {MARK}, and its packs may be the only ones that this repository has",
            hint=f"name another place; or bring all packs back there, `backstay tier recall`, and delete {MARK} here",
        )


def with_tiers(backend: StorageBackend, keyring: Keyring, open_store: OpenStore) -> StorageBackend:
    """The same backend, with the cold tier behind it if the repository has one."""
    hot = backend.inner if isinstance(backend, Tiered) else backend
    rule = TierLog(hot, keyring).read()
    if rule is None or (rule.cold is None and not rule.damage):
        return hot
    return Tiered(hot, cold_store(rule.cold, keyring, open_store, damage=rule.damage))


def cold_store(cold: str | None, keyring: Keyring, open_store: OpenStore, *, damage: str = "") -> ColdStore:
    """The store at an address; at none, one that is never attached and says why."""
    if cold is not None:
        return ColdStore(cold, keyring.repository.hex(), open_store)

    def refuse(address: str, create: bool) -> StorageBackend:  # noqa: ARG001 - the same whatever is asked for
        raise InvalidRequest("where the cold tier is cannot be read", cause=damage)

    return ColdStore("an address that is not known", keyring.repository.hex(), refuse)
