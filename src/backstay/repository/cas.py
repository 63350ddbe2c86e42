"""The content-addressed store of a repository: any bytes under the SHA-256 that they have."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Final, TypeVar

from backstay.codec.canonical_json import Json, parse_json, parse_stored
from backstay.codec.compression import Buffer
from backstay.core.arguments import checks_arguments
from backstay.core.clock import datetime_from_ns
from backstay.errors import CorruptedBackup, NotFound
from backstay.repository.blobs.contents import read_content
from backstay.repository.logs.value_entries import IS_JSON, SMALL_VALUE
from backstay.repository.logs.values import Draft, LogView
from backstay.repository.repository import Repository
from backstay.repository.values.batch import Batch, is_as_given
from backstay.repository.values.content import ValueContent, encoded_metadata
from backstay.repository.values.fold import FoldResult, fold, is_due
from backstay.repository.values.ids import parse_value_id, value_id
from backstay.repository.values.presence import ValuePresence
from backstay.repository.values.references import ValueReferences
from backstay.repository.values.removal import Removal
from backstay.repository.values.state import ValuesState, absent
from backstay.repository.values.stored import StoredValue
from backstay.repository.values.tree import ValueTrees

FOLD_AGAIN: Final = 32  # entries after which a fold that could do nothing is tried again
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueInfo:
    """What is known of a value: its size in bytes, whether it was given as JSON, its metadata, and when it came."""

    id: str
    size: int
    is_json: bool
    metadata: Mapping[str, Json]
    stored: datetime


@checks_arguments
class ContentAddressableStorage:
    """Values under `sha256:` and their SHA-256; every `key` may lack the prefix. Any thread may call it.

    What `store` returned the id of is durable. Values are encrypted and deduplicated like everything in the
    repository; large ones share chunks with their earlier versions.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository, self._log = repository, repository.values_log
        self._trees = ValueTrees(lambda: repository.reader)
        self._state: ValuesState | None = None
        self._references = ValueReferences(repository)
        self._fold_from = 0  # the number of the last entry from which on a fold is tried

    # -- storing

    def store(
        self, content: ValueContent, metadata: Mapping[str, Json] | None = None, *, base: str | None = None
    ) -> str:
        """Store bytes, the file of a Path, a binary stream, an iterable of bytes, or a JSON value; its id.

        JSON is stored in the canonical form of RFC 8785. `metadata` is a JSON object; given for a value that is there,
        it replaces the earlier one. `base` names a value that this one is a new version of: where little
        changed, only that is stored.
        Raises InvalidRequest, NotFound for a `base` or file that is not there, InsufficientSpace, StorageUnavailable.
        """
        if base is not None:
            self._require(base)
        if isinstance(content, memoryview) and not content.c_contiguous:
            content = content.tobytes()
        if isinstance(content, bytes | bytearray | memoryview) and self._is_kept(content, metadata):
            return value_id(sha256(content).digest())
        with self.batch() as batch:
            return batch.store(content, metadata, base=base)

    def _is_kept(self, content: Buffer, metadata: Mapping[str, Json] | None) -> bool:
        """Whether a large value is there as it was given: then nothing of it need be cut."""
        if memoryview(content).nbytes <= SMALL_VALUE:
            return False
        digest, encoded = sha256(content).digest(), encoded_metadata(metadata)
        found = self._looked_up(lambda state: state.find(digest))
        return found is not None and is_as_given(found, encoded) and ValuePresence(self._repository).has(found)

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        """Many values, one commit: none of them is there before the end of the block, nor after an error in it."""
        self._repository.require_fit()
        self._fold_if_due()
        with ExitStack() as stack:
            batch = Batch(self._repository, self._state_of, stack)
            yield batch
            batch.commit()

    def _fold_if_due(self) -> None:
        with self._log.lock:
            view = self._log.view
            if not is_due(view) or view.last < self._fold_from or view.damaged:
                return
            try:
                done = fold(self._repository)
            except CorruptedBackup:  # told by `fold` and `verify`; what is lost is no reason to take nothing more
                done = None
            if done is None:  # or a writer at work has an entry that must not be covered yet
                self._fold_from = view.last + FOLD_AGAIN

    # -- reading

    def retrieve(self, key: str) -> bytes:
        """The bytes of a value, exactly. Raises NotFound, CorruptedBackup.

        For a value that was seen before, no look is taken whether another program has removed it since.
        """
        return b"".join(self.open(key))

    def open(self, key: str) -> Iterator[bytes]:
        """The bytes of a value, piece by piece; damage that only its SHA-256 shows is told at the end.

        Raises NotFound at once; CorruptedBackup.
        """
        return self._pieces(self._require(key))

    def load(self, key: str) -> Json:
        """The JSON value that was stored. Raises NotFound, InvalidRequest for bytes that are no JSON."""
        return parse_json(self.retrieve(key), what=key)

    def exists(self, key: str) -> bool:
        """Whether a value is there. Raises CorruptedBackup where damage makes that uncertain."""
        digest = parse_value_id(key)
        return self._looked_up(lambda state: state.find(digest)) is not None

    def missing(self, keys: Iterable[str]) -> builtins.list[str]:
        """Those of many ids that have no value, in the order of their ids; one look at the log for all of them."""
        digests = sorted({parse_value_id(key) for key in keys})
        return self._looked_up(lambda state: [value_id(digest) for digest in digests if not state.holds(digest)])

    def unavailable(self, keys: Iterable[str]) -> builtins.list[str]:
        """Those of many ids that cannot be had, in the order of their ids: there is no value, or the store has lost a
        pack that it needs. No bytes are read."""
        digests = sorted({parse_value_id(key) for key in keys})

        def look(state: ValuesState) -> builtins.list[str]:
            presence, lost = ValuePresence(self._repository), []
            for digest in digests:
                content = state.content(digest)
                if content is None or not presence.holds(content):
                    lost.append(value_id(digest))
            return lost

        return self._looked_up(look)

    def info(self, key: str) -> ValueInfo:
        """What is known of a value. Raises NotFound, CorruptedBackup."""
        return _info(self._require(key))

    def list(self) -> Iterator[str]:
        """The ids of all values, in order, as they are when it is called. Raises CorruptedBackup."""
        with self._log.lock:
            state = self._state_of(self._log.refresh())
        return (value_id(value.sha256) for value in self._under_lock(state.values()))

    def _under_lock(self, values: Iterator[StoredValue]) -> Iterator[StoredValue]:
        while True:
            with self._log.lock:
                value = next(values, None)
            if value is None:
                return
            yield value

    def _require(self, key: str) -> StoredValue:
        digest = parse_value_id(key)
        with self._log.lock:
            known = self._known(digest)
        return known if known is not None else self._require_now(digest)

    def _known(self, digest: bytes) -> StoredValue | None:
        """A value, as far as the last look at the log goes, which knows all that this program did since."""
        if self._state is None or self._state.view is not self._log.view:
            return None
        try:
            return self._state.known(digest)
        except (CorruptedBackup, NotFound):  # a fold has dropped what it would be read from
            return None

    def _require_now(self, digest: bytes) -> StoredValue:
        found = self._looked_up(lambda state: state.find(digest))
        if found is None:
            raise absent(value_id(digest))
        return found

    def _pieces(self, value: StoredValue) -> Iterator[bytes]:
        if value.data is not None:
            yield value.data
            return
        digest, size = sha256(), 0
        try:
            for piece in read_content(value.content, self._repository.reader):
                digest.update(piece)
                size += len(piece)
                yield bytes(piece)
        except CorruptedBackup:
            self._require_now(value.sha256)  # it may have been removed, and its space given to others
            raise
        if digest.digest() != value.sha256 or size != value.size:
            raise CorruptedBackup(f"{value_id(value.sha256)} holds other bytes than its id says")

    def _looked_up(self, look: Callable[[ValuesState], Found]) -> Found:
        """What the log says now."""
        with self._log.lock:
            return self._log.look(lambda view: look(self._state_of(view)))

    def _state_of(self, view: LogView) -> ValuesState:
        if self._state is None or self._state.view is not view or self._state.pending:
            self._state = ValuesState(self._repository, view, self._trees)
        return self._state

    # -- removing

    def delete(self, key: str, *, force: bool = False) -> bool:
        """Remove a value; False if it is not there.

        Raises ValueInUse while a snapshot refers to it, unless `force`; ValueBusy while one is being made that may.
        """
        digest = parse_value_id(key)
        with self._log.lock:
            self._repository.require_fit()
            return Removal(self._repository, self._references, self._state_of).remove([digest], force=force)

    def discard(self, keys: Iterable[str]) -> builtins.list[str]:
        """Remove those of the values that no snapshot refers to; the ids of what went. Raises ValueBusy."""
        digests = {parse_value_id(key) for key in keys}
        with self._log.lock:
            self._repository.require_fit()
            gone = Removal(self._repository, self._references, self._state_of).discard(digests)
        return [value_id(digest) for digest in gone]

    # -- for those who refer to values

    def intend(self, session: str) -> None:
        """Say that the snapshot of an announced session is about to refer to values, before they are looked up.

        Until it was committed, or its session ended, nobody removes a value. Raises StorageUnavailable.
        """
        with self._log.lock:
            self._repository.require_fit()
            self._log.append(lambda _: Draft(intent=session))

    def copy_from(self, other: ContentAddressableStorage, keys: Iterable[str]) -> int:
        """Take those of the values of another repository that are not here and are there; how many that were.

        Raises CorruptedBackup for one whose bytes are damaged, before any of them is here.
        """
        count = 0
        with self.batch() as batch:
            for key in self.missing(keys):
                digest = parse_value_id(key)
                found = other._looked_up(lambda state, digest=digest: state.find(digest))  # type: ignore[misc]
                if found is not None:
                    batch.copy(found, other._pieces(found))
                    count += 1
        return count

    def fold(self, *, accept_loss: bool = False) -> FoldResult | None:
        """Make one snapshot of all values, as happens by itself when the log is long; None if there is nothing to do.

        `accept_loss` gives up for good what the log lost, where it is damaged and no copy mends it.
        """
        with self._log.lock:
            return fold(self._repository, accept_loss=accept_loss)


def _info(value: StoredValue) -> ValueInfo:
    return ValueInfo(
        id=value_id(value.sha256),
        size=value.size,
        is_json=bool(value.flags & IS_JSON),
        metadata=parse_stored(value.metadata),
        stored=datetime_from_ns(value.stored_ns),
    )
