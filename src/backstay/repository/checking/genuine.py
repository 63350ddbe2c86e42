"""Whether the bytes of an object are what its name promises; and whether an object is gone on purpose."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Final, TypeAlias

from backstay.core.ids import is_digest, is_ulid
from backstay.errors import CorruptedBackup, InvalidRequest, ObjectNotFound, UnsupportedFormat
from backstay.repository.format import ATTESTATIONS, GRAPHS, REPO, VALUES, WAL, tier_name
from backstay.repository.index.index import decode_segment, read_segment
from backstay.repository.logs.collections import OnDamage
from backstay.repository.logs.tiers import TierLog
from backstay.repository.logs.value_entries import values_number
from backstay.repository.logs.values import LogView
from backstay.repository.records import claimed_epoch
from backstay.repository.repository import Repository
from backstay.repository.wal.store import whole_of
from backstay.storage.addressing import contradicts_name, is_addressed
from backstay.storage.backend import StorageBackend
from backstay.storage.crash_order import is_transient
from backstay.storage.holdings import held
from backstay.storage.tiered import NOTES, RULES

Check: TypeAlias = Callable[[str, bytes], object]  # (rest of the name, bytes); raises CorruptedBackup
_EPOCH: Final = re.compile(r"(\d{8,})(\.compromised)?")
_TELLING: Final = ("keys/epochs/", "snapshots/", "drops/", "gc/")  # sealed with keys that nobody else has


class Genuine:
    """Tells whole objects of a repository from damaged and foreign ones. Any thread may call it."""

    def __init__(self, repository: Repository) -> None:
        self._header = repository.header.encode()
        self._keyring = repository.keyring
        self._lost_epochs: set[int] = set()
        snapshots, tiers = repository.snapshots, TierLog(repository.backend, repository.keyring)
        self._checks: dict[str, Check] = {
            REPO: self._check_header,
            "keys/epochs/": self._check_epoch,
            "keys/removed/": lambda rest, data: repository.slots.check_removal(_digest(rest), data),
            "snapshots/": lambda rest, data: snapshots.decode(_ulid(rest), data),
            "drops/": lambda rest, data: snapshots.decode_drop(_ulid(rest), data),
            "holds/": lambda rest, data: snapshots.holds.decode(f"holds/{rest}", data),
            "gc/": lambda rest, data: repository.collections.check(f"gc/{rest}", data),
            ATTESTATIONS: lambda rest, data: repository.attestations.check(f"{ATTESTATIONS}{rest}", data),
            GRAPHS: lambda rest, data: snapshots.graph_deletions.decode(f"{GRAPHS}{rest}", data),
            WAL: lambda rest, data: repository.wal.check(f"{WAL}{rest}", data),
            VALUES: lambda rest, data: repository.values_log.decode(f"{VALUES}{rest}", data),
            RULES: lambda rest, data: tiers.decode(_tier_number(rest), data),
            NOTES: self._check_note,
        }

    def is_whole(self, name: str, data: bytes) -> bool | None:
        """Whether an object is as it was written; None when this program does not know such objects."""
        if is_addressed(name):
            return not contradicts_name(name, data)
        for prefix, check in self._checks.items():
            if name.startswith(prefix):
                try:
                    check(name.removeprefix(prefix), data)
                except (CorruptedBackup, UnsupportedFormat):
                    return False
                return True
        return None

    def lost_epoch(self, data: bytes) -> int | None:
        """The epoch that an object says it was sealed in, if there is no key for it: then nobody can open it."""
        epoch = claimed_epoch(data, self._keyring.repository)
        if epoch is None or epoch in self._lost_epochs:
            return epoch
        try:
            self._keyring.key(epoch)
        except (CorruptedBackup, UnsupportedFormat):
            self._lost_epochs.add(epoch)
            return epoch
        return None

    def require_copy(self, store: StorageBackend, names: Iterable[str]) -> None:
        """Raises InvalidRequest unless the objects of these names in a store are those of this repository.

        Its repo.json may be damaged: then one genuine record must speak for it.
        """
        if held(store, REPO) == self._header:
            return
        for name in names:
            if name.startswith(_TELLING) and self.is_whole(name, held(store, name) or b""):
                return
        raise InvalidRequest(
            f"{store.url} is no copy of this repository",
            cause="its repo.json is another one, and it holds no record sealed with the same keys",
            hint="check the address",
        )

    def _check_header(self, rest: str, data: bytes) -> None:
        if rest or data != self._header:
            raise CorruptedBackup("repo.json is another one")

    def _check_note(self, rest: str, data: bytes) -> None:
        if data:
            raise CorruptedBackup(f"{NOTES}{rest} is not empty", cause="what it says is its name")

    def _check_epoch(self, rest: str, data: bytes) -> None:
        match = _EPOCH.fullmatch(rest)
        if match is None:
            raise CorruptedBackup(f"keys/epochs/{rest} is foreign")
        if match[2]:
            self._keyring.decode_mark(int(match[1]), data)
        else:
            self._keyring.decode_epoch(int(match[1]), data)


class Gone:
    """Which objects a record says to be deleted, so that a copy that still has them must not bring them back.

    `repository` is loaded; `segments` are its own. What a record that cannot be read would say is not known, so that
    it deletes nothing; `on_damage` gets it, and without that its error is raised.
    """

    def __init__(self, repository: Repository, segments: Iterable[str], on_damage: OnDamage | None = None) -> None:
        self._repository = repository
        self._deleted = repository.collections.deleted(on_damage)
        self._named: set[bytes] = set()
        for name in segments:
            self._named |= self._packs_of(name) or set()

    def is_gone(self, name: str) -> bool:
        """Whether an object that one store lacks is missing there on purpose."""
        kind, _, rest = name.partition("/")
        leaf = rest.rpartition("/")[2]
        if kind in ("packs", "meta"):
            return is_digest(leaf) and bytes.fromhex(leaf) in self._deleted
        if kind == "index":
            packs = self._packs_of(name) if is_digest(leaf) else None
            return packs is not None and packs <= self._named | self._deleted
        if name.startswith(NOTES):
            leaf = leaf.partition(".")[0]
            return is_digest(leaf) and bytes.fromhex(leaf) in self._deleted
        if kind == "snapshots":
            return leaf in self._repository.snapshots.dropped([leaf]) and leaf not in self._values.snapshots
        if name.startswith((ATTESTATIONS, GRAPHS)):
            ulid = rest.partition("/")[0].partition(".")[0]
            return ulid in self._repository.snapshots.dropped([ulid])
        if name.startswith("keys/slots/"):
            return is_digest(leaf) and self._repository.slots.was_removed(bytes.fromhex(leaf))
        if name.startswith(WAL) and (whole := whole_of(name)) is not None:
            return self._repository.backend.exists(whole)
        if name.startswith(VALUES):
            return self._is_covered(name)
        return is_transient(name)

    def _is_covered(self, name: str) -> bool:
        """Whether a checkpoint stands for an entry of the values log, so that it counts for nothing."""
        number = values_number(name)
        return number is not None and number <= self._values.covers

    @cached_property
    def _values(self) -> LogView:
        return self._repository.values_log.refresh()

    def is_superseded(self, name: str, data: bytes) -> bool:
        """Whether our segments name all packs of another store's segment that are not deleted."""
        try:
            record = decode_segment(self._repository.keyring, _digest(name.removeprefix("index/")), data)
        except (CorruptedBackup, UnsupportedFormat):
            return False
        return {pack.digest for pack in record.packs} <= self._named | self._deleted

    def _packs_of(self, name: str) -> set[bytes] | None:
        """What a segment names; None if no copy of it can be read."""
        leaf = name.removeprefix("index/")
        if not is_digest(leaf):
            return None
        try:
            record = read_segment(self._repository.backend, self._repository.keyring, bytes.fromhex(leaf))
        except (CorruptedBackup, UnsupportedFormat, ObjectNotFound):
            return None
        return {pack.digest for pack in record.packs}


def header_of(store: StorageBackend) -> bytes | None:
    """repo.json as it is stored; None where there is none."""
    return held(store, REPO)


def digest_of(name: str) -> bytes:
    """The digest in the name of a pack."""
    return _digest(name.rpartition("/")[2])


def _digest(text: str) -> bytes:
    if not is_digest(text):
        raise CorruptedBackup(f"{text} is no digest")
    return bytes.fromhex(text)


def _ulid(text: str) -> str:
    if not is_ulid(text):
        raise CorruptedBackup(f"{text} is no id")
    return text


def _tier_number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or tier_name(int(text)) != f"{RULES}{text}":
        raise CorruptedBackup(f"{text} is no number of a record")
    return int(text)
