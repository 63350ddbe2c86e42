"""Folding the values log: its state becomes the tree of a snapshot, and a checkpoint stands for the entries before it.

Each step is durable before the next begins:

1. a session is announced, so that no collection removes what the tree will name; then the log is read;
2. the tree is written: listings that nothing changed are kept as they are;
3. its snapshot is committed (a crash leaves one that no checkpoint names; a later fold drops it);
4. a checkpoint is appended (a crash leaves entries and snapshots that it covers; a later fold removes them);
5. values snapshots that the checkpoint makes needless are dropped;
6. the entries that it covers are deleted.

Two folds at once are harmless: of checkpoints that cover as much, the first counts, and the other's snapshot goes.
An entry whose snapshot has not come to be is not covered before its writer committed, or can do so no more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from backstay.errors import CorruptedBackup, HoldViolation, NotFound, ObjectNotFound
from backstay.repository.logs.value_entries import Checkpoint, ValuesEntry
from backstay.repository.logs.values import Draft, LogView
from backstay.repository.nodes import Content, Node
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest, is_values
from backstay.repository.values.intents import unresolved
from backstay.repository.values.state import ValuesState
from backstay.repository.values.stored import StoredValue
from backstay.repository.values.tree import ValueTrees, ValueTreeWriter
from backstay.repository.values.writing import COVERS, ValueWriter, writing_values

MANY_ENTRIES: Final = 256  # behind the checkpoint; more are folded
MANY_BYTES: Final = 8 << 20  # in these entries
_TRIES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldResult:
    """What a fold did: the entry up to which the log is one snapshot now, and how many values that has."""

    covers: int
    snapshot: str
    values: int
    dropped: tuple[str, ...]


def is_due(view: LogView) -> bool:
    """Whether the log has become long enough to be folded."""
    return len(view.entries) > MANY_ENTRIES or view.inline_bytes > MANY_BYTES


def fold(repository: Repository, *, accept_loss: bool = False) -> FoldResult | None:
    """Fold the log; None if there is nothing to fold. With `accept_loss`, what cannot be read is given up for good.

    Raises CorruptedBackup, SnapshotFenced, StorageUnavailable.
    """
    for attempt in range(1, _TRIES + 1):
        before = repository.values_log.view
        try:
            return _Fold(repository, accept_loss=accept_loss).run()
        except (CorruptedBackup, NotFound):
            # Another fold may have made the snapshots needless that this one was reading.
            if attempt == _TRIES or repository.values_log.refresh() == before:
                raise
    raise AssertionError


class _Fold:
    def __init__(self, repository: Repository, *, accept_loss: bool) -> None:
        self._repository, self._log = repository, repository.values_log
        self._accept_loss = accept_loss

    def run(self) -> FoldResult | None:
        with self._log.lock:
            if not self._accept_loss and not self._is_needed(self._log.refresh()):
                self._sweep()
                return None
            return self._run()

    def _is_needed(self, view: LogView) -> bool:
        """Whether an entry says something new, or others take a snapshot for deleted that the log counts on."""
        return not all(map(_is_checkpoint, view.entries)) or bool(self._dropped(view))

    def _dropped(self, view: LogView) -> set[str]:
        return self._repository.snapshots.dropped(view.snapshots) if view.snapshots else set()

    def _run(self) -> FoldResult | None:
        with writing_values(self._repository) as writer:
            state = self._state()
            if not state.view.entries and not state.view.damaged:
                return None
            manifest = self._write(writer, state)
            with writer.session.deciding():
                writer.commit(manifest)
            counted = self._checkpoint(manifest, state)
            if counted is None:
                return None
        dropped = self._sweep()
        return FoldResult(
            covers=counted.covers, snapshot=manifest.id, values=manifest.stats.files, dropped=tuple(dropped)
        )

    def _state(self) -> ValuesState:
        """What is to be covered: all entries before the first whose snapshot may still come to be."""
        repository, view = self._repository, self._log.refresh()
        trees = ValueTrees(lambda: repository.reader, accept_loss=self._accept_loss)
        if not self._accept_loss:
            view.require_whole()
        state = ValuesState(repository, view, trees)
        waiting = unresolved(repository, state.pending.values())
        first = min((number for number, ulid in state.pending.items() if ulid in waiting), default=None)
        if first is not None:
            entries = tuple(entry for entry in view.entries if entry.number < first)
            damaged = {number: error for number, error in view.damaged.items() if number < first}
            view = LogView(view.checkpoint, entries, first - 1, damaged)
        state = ValuesState(repository, view, trees)
        if not self._accept_loss:
            state.require_whole()
        return state

    def _write(self, writer: ValueWriter, state: ValuesState) -> Manifest:
        tree = writer.tree(self._repository.clock.now_ns())
        dropped = self._dropped(state.view)  # nobody kept what they need

        def trusts(source: Manifest) -> bool:
            return source.id not in dropped and writer.trusts(source)

        base = state.base
        keeps = base is not None and trusts(base) and not self._accept_loss
        kept = state.shards_of_base() if keeps else {}
        changed = state.changed_shards()
        origins = {source.id: trusts(source) for source in state.sources}
        is_trusted = all(origins.values()) and not self._accept_loss
        for shard in range(256):
            if shard in kept and shard not in changed:
                values = state.base_shard(shard)
                tree.keep(shard, kept[shard], len(values), values.total_size)
            else:
                self._write_shard(writer, tree, shard, state, is_trusted=is_trusted)
        return writer.finish(tree, {COVERS: str(state.view.last)})

    def _write_shard(
        self, writer: ValueWriter, tree: ValueTreeWriter, shard: int, state: ValuesState, *, is_trusted: bool
    ) -> None:
        nodes = (self._node(writer, value, is_trusted=is_trusted) for value in state.shard(shard).values())
        tree.add(shard, filter(None, nodes))

    def _node(self, writer: ValueWriter, value: StoredValue, *, is_trusted: bool) -> Node | None:
        """The entry of a value; None for one that is lost, where that is accepted."""
        try:
            return value.node(_content(writer, value, is_trusted=is_trusted))
        except (CorruptedBackup, ObjectNotFound):
            if not self._accept_loss:
                raise
            return None

    def _checkpoint(self, manifest: Manifest, state: ValuesState) -> Checkpoint | None:
        """Let the snapshot stand for the entries; None if another fold has covered as much meanwhile."""
        view = state.view
        checkpoint = Checkpoint(
            manifest.id,
            view.last,
            tuple(entry.nonce for entry in view.entries),
            tuple(unresolved(self._repository, view.intents)),
        )

        def make(now: LogView) -> Draft | None:
            return Draft(checkpoint=checkpoint) if now.covers < checkpoint.covers else None

        entry = self._log.append(make)
        return checkpoint if entry is not None else None

    def _sweep(self) -> list[str]:
        """Steps 5 and 6, also for folds that were cut short; the snapshots that were dropped."""
        # Snapshots are listed before the log is read: one that the log names later than it was read is not dropped.
        found = [manifest for manifest in self._repository.snapshots.live(lambda _, __: None) if is_values(manifest)]
        view = self._log.refresh()
        dropped = self._drop_needless(found, view)
        self._log.forget([number for number in self._log.stored_numbers() if number <= view.covers])
        return dropped

    def _drop_needless(self, found: list[Manifest], view: LogView) -> list[str]:
        named = {entry.snapshot for entry in view.entries}
        dropped = []
        for manifest in found:
            if view.checkpoint is None or manifest.id == view.checkpoint.snapshot or manifest.id in named:
                continue
            if not _may_count(manifest, view):
                self._drop(manifest)
                dropped.append(manifest.id)
        return dropped

    def _drop(self, manifest: Manifest) -> None:
        try:
            self._repository.snapshots.drop(manifest.id, "its values are in a later snapshot", self._repository.clock)
        except (HoldViolation, NotFound, ObjectNotFound):
            return  # held by somebody, or dropped by another fold


def _is_checkpoint(entry: ValuesEntry) -> bool:
    return not (entry.adds or entry.removes or entry.snapshot or entry.intent)


def _may_count(manifest: Manifest, view: LogView) -> bool:
    """Whether a checkpoint that names this snapshot may come and count; entries name theirs before they exist."""
    covers = manifest.consistency.get(COVERS, "")
    return covers.isdecimal() and int(covers) > view.covers


def _content(writer: ValueWriter, value: StoredValue, *, is_trusted: bool) -> Content:
    if value.data is not None:
        return writer.put([value.data])[2]
    if not is_trusted:
        writer.secure(value.content)
    return value.content
