"""Many values, one commit: few small ones become one entry of the log, others a snapshot that an entry names.

The entry comes before the snapshot, whose commit decides: until then it adds nothing, and a fence makes that final.
So no values snapshot is ever without an entry, and whoever finds one that no entry names may drop it.
A crash before the commit leaves an entry that adds nothing, and packs that a collection removes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import chain
from typing import Final

from backstay.codec.canonical_json import Json
from backstay.codec.deltas import MOST
from backstay.codec.digest import sha256
from backstay.core.arguments import checks_arguments
from backstay.errors import InvalidRequest
from backstay.repository.logs.value_entries import SMALL_VALUE, InlineValue
from backstay.repository.logs.values import Draft, LogView
from backstay.repository.nodes import EMPTY, Content
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.values.content import ValueContent, encoded_metadata, pieces_of
from backstay.repository.values.ids import parse_value_id, value_id
from backstay.repository.values.presence import ValuePresence
from backstay.repository.values.state import ValuesState, absent
from backstay.repository.values.stored import StoredValue
from backstay.repository.values.writing import ValueWriter, deciding, writing_values

INLINE_VALUES: Final = 256  # small ones that one entry takes
StateOf = Callable[[LogView], ValuesState]


@checks_arguments
class Batch:
    """Values that will be there together, or not at all. Made by `ContentAddressableStorage.batch`."""

    def __init__(self, repository: Repository, state_of: StateOf, stack: ExitStack) -> None:
        self._repository, self._state_of, self._stack = repository, state_of, stack
        self._lock = repository.values_log.lock
        self._values: dict[bytes, StoredValue] = {}
        self._inline_bytes = 0
        self._writer: ValueWriter | None = None
        self._presence = ValuePresence(repository)
        self._anew: set[bytes] = set()
        self._is_open = True

    def store(
        self, content: ValueContent, metadata: Mapping[str, Json] | None = None, *, base: str | None = None
    ) -> str:
        """Take a value; its id. It is there when the batch has ended without an error.

        `base` names an earlier version, also one of this batch. Raises InvalidRequest, NotFound.
        """
        if not self._is_open:
            raise InvalidRequest(
                "the batch has ended", cause="values are stored in it only before", hint="open another"
            )
        pieces, flags = pieces_of(content)
        encoded = encoded_metadata(metadata)
        with self._lock:
            earlier = self._earlier(base) if base is not None else EMPTY
            return value_id(self._take(pieces, flags, encoded, earlier))

    def _earlier(self, base: str) -> Content:
        """What names the chunks of an earlier version; nothing if it lies in the log itself."""
        digest = parse_value_id(base)
        found = self._values.get(digest) or self._state_of(self._repository.values_log.refresh()).find(digest)
        if found is None:
            raise absent(value_id(digest))
        return found.content

    def copy(self, value: StoredValue, pieces: Iterator[bytes]) -> None:
        """Take a value of another repository, with all that is known of it."""
        with self._lock:
            self._take(pieces, value.flags, value.metadata, EMPTY)

    def _take(self, pieces: Iterator[bytes], flags: int, metadata: bytes | None, earlier: Content) -> bytes:
        head, is_all = _head(pieces, SMALL_VALUE if earlier == EMPTY else MOST)
        if is_all and len(head) <= SMALL_VALUE and self._writer is None:
            digest = sha256(head)
            if digest not in self._values:
                self._inline_bytes += len(head)
            self._keep(StoredValue(digest, len(head), flags, metadata, self._now(), head, EMPTY))
            if self._inline_bytes > SMALL_VALUE or len(self._values) > INLINE_VALUES:
                self._spill()
            return digest
        writer = self._spill()
        before = writer.chunks_added
        changes = writer.put_changes(head, earlier) if is_all and earlier != EMPTY else None
        if changes is not None:
            digest, size, content = sha256(head), len(head), changes
        else:
            digest, size, content = writer.put(chain([head], pieces))
        self._note_anew(digest, writer, before)
        self._keep(StoredValue(digest, size, flags, metadata, self._now(), None, content))
        return digest

    def _note_anew(self, digest: bytes, writer: ValueWriter, before: int) -> None:
        """Remember of which values something was stored: if the log has them, it lay in packs that are lost."""
        if writer.chunks_added > before:
            self._anew.add(digest)

    def _keep(self, value: StoredValue) -> None:
        earlier = self._values.get(value.sha256)
        if earlier is None or value.metadata is not None:
            self._values[value.sha256] = value

    def _now(self) -> int:
        return self._repository.clock.now_ns()

    def _spill(self) -> ValueWriter:
        """From now on values go into chunks at once."""
        if self._writer is None:
            self._writer = self._stack.enter_context(writing_values(self._repository))
            for digest, value in self._values.items():
                assert value.data is not None
                before = self._writer.chunks_added
                content = self._writer.put([value.data])[2]
                self._note_anew(digest, self._writer, before)
                self._values[digest] = StoredValue(
                    digest, value.size, value.flags, value.metadata, value.stored_ns, None, content
                )
        return self._writer

    def commit(self) -> None:
        """Let the values be there. Those that are there already, with the same metadata, are left as they are."""
        with self._lock:
            self._is_open = False
            if self._writer is None:
                self._repository.values_log.append(self._inline)
            else:
                self._commit_snapshot(self._writer)

    def _inline(self, view: LogView) -> Draft | None:
        missing = [_inline_value(self._values[digest]) for digest in self._missing(view)]
        return Draft(adds=tuple(missing)) if missing else None

    def _missing(self, view: LogView) -> tuple[bytes, ...]:
        """Those that the log does not have as they were given, in the order of their ids."""
        state = self._state_of(view)
        return tuple(digest for digest, value in sorted(self._values.items()) if not self._is_kept(state, value))

    def _is_kept(self, state: ValuesState, value: StoredValue) -> bool:
        """Whether nothing of a value need be stored: what lies in a pack that is lost is stored again."""
        found = state.known(value.sha256)
        if found is None or not is_as_given(found, value.metadata):
            return False
        if self._writer is not None:
            return found.data is not None or value.sha256 not in self._anew
        return self._presence.has(found)

    def _commit_snapshot(self, writer: ValueWriter) -> None:
        log = self._repository.values_log
        missing = log.look(self._missing)
        while missing:
            manifest = self._snapshot(writer, missing)
            newer: list[tuple[bytes, ...]] = []

            def make(
                view: LogView, missing: tuple[bytes, ...] = missing, newer: list[tuple[bytes, ...]] = newer
            ) -> Draft | None:
                now = self._missing(view)
                if set(now) <= set(missing):
                    return Draft(snapshot=writer.session.id)
                newer.append(now)  # somebody removed values that were there
                return None

            with deciding(writer):
                if log.append(make) is not None:
                    writer.commit(manifest)
            if not newer:
                return
            missing = tuple(sorted({*missing, *newer[-1]}))

    def _snapshot(self, writer: ValueWriter, digests: Iterable[bytes]) -> Manifest:
        tree = writer.tree(self._now())
        shards: dict[int, list[StoredValue]] = {}
        for digest in digests:
            shards.setdefault(digest[0], []).append(self._values[digest])
        for shard, values in sorted(shards.items()):
            tree.add(shard, (value.node(value.content) for value in values))
        return writer.finish(tree, {})


def is_as_given(found: StoredValue, metadata: bytes | None) -> bool:
    """Whether a value has the metadata that it is given now; without any it keeps its own."""
    return metadata is None or found.metadata == metadata


def _inline_value(value: StoredValue) -> InlineValue:
    assert value.data is not None
    return InlineValue(value.sha256, value.size, value.flags, value.metadata, value.data)


def _head(pieces: Iterator[bytes], most: int) -> tuple[bytes, bool]:
    """The beginning of a value, and whether that is all of it because it has at most so many bytes."""
    found: list[bytes] = []
    size = 0
    for piece in pieces:
        found.append(piece)
        size += len(piece)
        if size > most:
            return b"".join(found), False
    return b"".join(found), True
