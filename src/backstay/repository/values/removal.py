"""Removing values: one entry of the log, at a number before which nobody announced to refer to them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import islice

from backstay.errors import ValueBusy, ValueInUse
from backstay.repository.logs.value_entries import MAX_REMOVES
from backstay.repository.logs.values import Draft, LogView
from backstay.repository.repository import Repository
from backstay.repository.values.ids import value_id
from backstay.repository.values.intents import unresolved
from backstay.repository.values.references import ValueReferences
from backstay.repository.values.state import ValuesState


class Removal:
    """One attempt after the other to remove values, until the log has not changed in between.

    A crash leaves the values, or the whole entry: there is nothing else to undo.
    """

    def __init__(
        self, repository: Repository, references: ValueReferences, state_of: Callable[[LogView], ValuesState]
    ) -> None:
        self._repository, self._references, self._state_of = repository, references, state_of

    def remove(self, digests: Collection[bytes], *, force: bool) -> bool:
        """Remove values; False if none of them is there. Raises ValueInUse, ValueBusy, CorruptedBackup."""

        def make(view: LogView) -> Draft | None:
            there = self._there(view, digests)
            if not there:
                return None
            self._require_no_intents(view)
            if not force:
                for digest, snapshot in self._references.naming(there).items():
                    raise ValueInUse(f"{value_id(digest)} is in use", cause=f"snapshot {snapshot} refers to it")
            return Draft(removes=tuple(there))

        return self._repository.values_log.append(make) is not None

    def discard(self, digests: Collection[bytes]) -> list[bytes]:
        """Remove those that no live snapshot refers to; which. Raises ValueBusy, CorruptedBackup."""
        gone: list[bytes] = []
        rest = iter(sorted(digests))
        while part := [*islice(rest, MAX_REMOVES)]:
            gone.extend(self._discard(part))
        return gone

    def _discard(self, digests: Collection[bytes]) -> tuple[bytes, ...]:
        def make(view: LogView) -> Draft | None:
            there = self._there(view, digests)
            if not there:
                return None
            self._require_no_intents(view)
            used = self._references.naming(there)
            free = tuple(digest for digest in there if digest not in used)
            return Draft(removes=free) if free else None

        entry = self._repository.values_log.append(make)
        return entry.removes if entry is not None else ()

    def _there(self, view: LogView, digests: Collection[bytes]) -> list[bytes]:
        state = self._state_of(view)
        state.require_whole()
        return [digest for digest in sorted(digests) if state.find(digest) is not None]

    def _require_no_intents(self, view: LogView) -> None:
        waiting = unresolved(self._repository, view.intents)
        if waiting:
            raise ValueBusy(
                "no value can be removed now",
                cause=f"a snapshot that may refer to it is being made (session {waiting[0]})",
            )
