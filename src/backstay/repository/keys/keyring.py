"""The keys of an open repository: root, epochs, and what is derived from them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import msgspec

from backstay.codec.cipher import KEY_BYTES, expand
from backstay.codec.digest import ChunkIds
from backstay.core.clock import Clock
from backstay.core.ids import Random
from backstay.errors import CorruptedBackup, ObjectExists, ObjectNotFound, ObjectUnreadable, UnsupportedFormat
from backstay.repository.format import FEATURES, RecordKind, epoch_name
from backstay.repository.packs.blobs import BlobKeys
from backstay.repository.records import Body, header_epoch, names_repository, open_record, seal_record
from backstay.repository.tolerance import Tolerance
from backstay.storage.backend import StorageBackend
from backstay.storage.copies import retrieve_valid
from backstay.trust.signing import SEED_BYTES, Signer

EPOCH_LIFE: Final = timedelta(days=90)
_COMPROMISED: Final = ".compromised"
_EPOCH_HINT: Final = "put this object back from a copy: what was sealed in its epoch needs it"


class EpochRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """keys/epochs/<n>: a data key and a signing key, sealed under the root key.

    `features` are what a program must know beyond format 1 from this epoch on; so a repository can be upgraded.
    """

    number: int
    created_ns: int
    key: bytes
    signing_seed: bytes
    public: bytes
    features: tuple[str, ...] = ()


class CompromiseRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """keys/epochs/<n>.compromised: packs of this epoch are to be rewritten."""

    number: int
    marked_ns: int


@dataclass(frozen=True, slots=True)
class Epoch:
    """A time span in which new packs use one data key and new snapshots one signing key."""

    number: int
    created_ns: int
    key: bytes
    signer: Signer
    compromised: bool


class Keyring:
    """Opens what any epoch sealed, and seals with the newest one."""

    def __init__(self, backend: StorageBackend, root: bytes, repository: bytes, *, random: Random = os.urandom) -> None:
        self._backend = backend
        self._random = random
        self._wrapping = expand(root, b"backstay/v1/epoch")
        self.root = root
        self.repository = repository
        self.chunk_ids = ChunkIds(expand(root, b"backstay/v1/chunk-id"))
        self.chunker_secret = (
            int.from_bytes(expand(root, b"backstay/v1/chunker", 8), "big") >> 1
        )  # the library takes 63 bits
        self.resume_key = expand(root, b"backstay/v1/resume")
        self._epochs: dict[int, Epoch] = {}
        self.damaged: dict[int, CorruptedBackup | ObjectUnreadable] = {}
        self.foreign: list[str] = []
        self.tolerance = Tolerance()

    def load(self) -> None:
        """Read every epoch record. One that cannot be read goes to `damaged`; whoever needs its key gets the error.

        Raises CorruptedBackup, ObjectUnreadable when there is no epoch, UnsupportedFormat for one of a newer program.
        """
        names = {info.name for info in self._backend.list("keys/epochs/")}
        self.damaged = {}
        numbers = {n: _epoch_number(n) for n in sorted(names) if not n.endswith(_COMPROMISED)}
        self.foreign = [n for n in sorted(names) if _epoch_number(n.removesuffix(_COMPROMISED)) is None]
        for name, number in numbers.items():
            if number is None:
                continue
            try:
                if self._is_foreign(number):
                    continue
                compromised = name + _COMPROMISED in names and self._is_marked(number)
                if number not in self._epochs or self._epochs[number].compromised != compromised:
                    self._epochs[number] = self._read(number, compromised=compromised)
            except (CorruptedBackup, ObjectUnreadable) as error:
                self.damaged[number] = error
        if not self._epochs:
            raise next(iter(self.damaged.values()), None) or CorruptedBackup(
                "the repository has no key epoch", cause="keys/epochs/ is empty"
            )

    def _is_marked(self, number: int) -> bool:
        """Whether a genuine mark lies beside an epoch; one that cannot be read marks nothing, and `check` tells."""
        try:
            return self._is_compromised(number)
        except (CorruptedBackup, ObjectUnreadable):
            return False

    def _is_compromised(self, number: int) -> bool:
        """Whether the marker beside an epoch is genuine. Raises CorruptedBackup."""
        name = epoch_name(number) + _COMPROMISED
        return retrieve_valid(self._backend, name, lambda data: self.decode_mark(number, data)).number == number

    def decode_mark(self, number: int, data: bytes) -> CompromiseRecord:
        """The mark that lies beside an epoch. Raises CorruptedBackup."""
        if header_epoch(data, RecordKind.COMPROMISE, self.repository) != number:
            raise CorruptedBackup(f"{epoch_name(number)}{_COMPROMISED} is about another epoch")
        return open_record(data, key=self._wrapping, type=CompromiseRecord)

    @property
    def epochs(self) -> list[Epoch]:
        """All epochs, oldest first."""
        return [self._epochs[number] for number in sorted(self._epochs)]

    @property
    def current(self) -> Epoch:
        return self._epochs[max(self._epochs)]

    def blob_keys(self) -> BlobKeys:
        """What opens the blobs of all epochs that were read."""
        return BlobKeys({number: epoch.key for number, epoch in self._epochs.items()}, self.chunk_ids.key)

    def key(self, epoch: int) -> bytes:
        """The data key of an epoch. Raises CorruptedBackup when its record is missing, ObjectUnreadable."""
        if epoch in self._epochs:
            return self._epochs[epoch].key
        if (known := self.damaged.get(epoch)) is not None:
            if isinstance(known, ObjectUnreadable):
                self.tolerance.judge(known)
            raise known
        try:
            self._epochs[epoch] = self._read(epoch, compromised=False)  # began after we loaded
        except ObjectNotFound as error:
            raise CorruptedBackup(
                f"the key of epoch {epoch} is missing", cause=f"there is no object {epoch_name(epoch)}"
            ) from error
        except CorruptedBackup as error:  # its header is damaged, so that it was taken for that of another repository
            raise CorruptedBackup(f"{epoch_name(epoch)} is damaged", cause=str(error), hint=_EPOCH_HINT) from error
        return self._epochs[epoch].key

    def public(self, epoch: int) -> bytes:
        """The public half of an epoch's signing key."""
        self.key(epoch)
        return self._epochs[epoch].signer.public

    def begin_epoch(self, clock: Clock) -> Epoch:
        """Start a new epoch; packs and snapshots written from now on use it.

        Order: the record is durable before anything is sealed with its key, so a crash leaves an unused epoch.
        """
        number = max([0, *self._epochs, *self.damaged]) + 1
        while True:
            signer = Signer(seed := self._random(SEED_BYTES))
            body = EpochRecord(number, clock.now_ns(), self._random(KEY_BYTES), seed, signer.public)
            try:
                self._backend.store(epoch_name(number), self._wrap(RecordKind.EPOCH, body, number))
            except ObjectExists:
                if self._is_foreign(number):
                    number += 1
                    continue
                self._epochs[number] = self._read(number, compromised=False)  # another writer began it first: use that
            else:
                self._epochs[number] = Epoch(number, body.created_ns, body.key, signer, compromised=False)
            break
        return self._epochs[number]

    def _is_foreign(self, number: int) -> bool:
        """Whether an interrupted `create` left this record: it names a repository that never came to be."""
        try:
            retrieve_valid(self._backend, epoch_name(number), self._check_own)
        except CorruptedBackup:
            return True
        return False

    def _check_own(self, data: bytes) -> None:
        if not names_repository(data, self.repository):
            raise CorruptedBackup("it names another repository")

    def begin_epoch_if_due(self, clock: Clock) -> None:
        """Start a new epoch when the current one has served its time or is compromised."""
        age = clock.now_ns() - self.current.created_ns
        if self.current.compromised or age > EPOCH_LIFE / timedelta(microseconds=1) * 1000:
            self.begin_epoch(clock)

    def mark_compromised(self, number: int, clock: Clock) -> None:
        """Say that an epoch's key is known to others, so that collection rewrites its packs."""
        self.key(number)
        body = CompromiseRecord(number, clock.now_ns())
        try:
            self._backend.store(epoch_name(number) + _COMPROMISED, self._wrap(RecordKind.COMPROMISE, body, number))
        except ObjectExists:
            return
        finally:
            self.load()

    def check(self, number: int) -> None:
        """Read an epoch's record once more, and its mark if there is one. Raises CorruptedBackup, ObjectNotFound."""
        self._read(number, compromised=False)
        mark = epoch_name(number) + _COMPROMISED
        listed = any(info.name == mark for info in self._backend.list(mark))  # as one that loads finds it
        if listed and not self._is_compromised(number):
            raise CorruptedBackup(f"{epoch_name(number)}{_COMPROMISED} marks another epoch")

    def seal(self, kind: RecordKind, body: msgspec.Struct, *, compress: bool = True) -> bytes:
        """A record under the current epoch."""
        return self._seal(kind, body, self.current.number, self.current.key, compress=compress)

    def open(self, data: bytes, kind: RecordKind, type: type[Body]) -> Body:  # noqa: A002 - msgspec's own word
        """The body of a record of this repository, whatever its epoch. Raises CorruptedBackup, UnsupportedFormat."""
        return open_record(data, key=self.key(header_epoch(data, kind, self.repository)), type=type)

    def _wrap(self, kind: RecordKind, body: msgspec.Struct, epoch: int) -> bytes:
        return self._seal(kind, body, epoch, self._wrapping)

    def _seal(self, kind: RecordKind, body: msgspec.Struct, epoch: int, key: bytes, *, compress: bool = True) -> bytes:
        return seal_record(
            kind, body, repository=self.repository, epoch=epoch, key=key, random=self._random, compress=compress
        )

    def _read(self, number: int, *, compromised: bool) -> Epoch:
        return retrieve_valid(
            self._backend, epoch_name(number), lambda data: self.decode_epoch(number, data, compromised=compromised)
        )

    def decode_epoch(self, number: int, data: bytes, *, compromised: bool = False) -> Epoch:
        """The epoch of a stored record. Raises CorruptedBackup, UnsupportedFormat."""
        if header_epoch(data, RecordKind.EPOCH, self.repository) != number:
            raise CorruptedBackup(f"{epoch_name(number)} is the record of another epoch")
        body = open_record(data, key=self._wrapping, type=EpochRecord)
        if unknown := set(body.features) - FEATURES:
            raise UnsupportedFormat(
                "this repository was upgraded for a newer version of backstay",
                cause=f"key epoch {number} needs {', '.join(sorted(unknown))}",
            )
        if len(body.signing_seed) != SEED_BYTES:
            raise CorruptedBackup(f"{epoch_name(number)} contradicts itself")
        signer = Signer(body.signing_seed)
        if body.number != number or len(body.key) != KEY_BYTES or signer.public != body.public:
            raise CorruptedBackup(f"{epoch_name(number)} contradicts itself")
        return Epoch(number, body.created_ns, body.key, signer, compromised)


def _epoch_number(name: str) -> int | None:
    """The number in an epoch's name; None for what somebody else put there."""
    text = name.removeprefix("keys/epochs/")
    return int(text) if text.isdecimal() and text.isascii() and epoch_name(int(text)) == name else None
