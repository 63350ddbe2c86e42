"""The store of the cold tier: opened when it is needed, and never taken for another one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

from backstay.core.clock import SystemClock
from backstay.errors import (
    InvalidRequest,
    ObjectExists,
    ObjectNotFound,
    StorageMissing,
    TierNotAttached,
)
from backstay.storage.backend import StorageBackend
from backstay.storage.local import LocalStorage
from backstay.storage.memory import MemoryStorage
from backstay.storage.registry import open_backend
from backstay.storage.retrying import Retrying

OpenStore: TypeAlias = Callable[[str, bool], StorageBackend]  # (address, whether its directory may be made)

_AT_HAND: Final = (LocalStorage, MemoryStorage)  # what answers at once or never
MARK: Final = "tier.json"  # in the cold store: whose cold tier it is


class ColdStore:
    """One address. An empty mount point, or the disk of another repository, is as good as nothing there."""

    def __init__(self, address: str, repository: str, open_store: OpenStore) -> None:
        self.address = address
        self._repository = repository
        self._open_store = open_store
        self._backend: StorageBackend | None = None
        self._lock = threading.Lock()

    def open(self) -> StorageBackend:
        """The store, proved to be the right one. Raises TierNotAttached, StorageUnavailable."""
        with self._lock:
            if self._backend is None:
                backend = self._opened(create=False)
                self._require_mark(backend)
                self._backend = backend
            return self._backend

    def is_attached(self) -> bool:
        """Whether the store is there. Raises StorageUnavailable when that cannot be told."""
        try:
            self.open()
        except TierNotAttached:
            return False
        return True

    def has_locks(self) -> bool:
        """Whether its address asks for locks. The store itself is not asked, so that it may be away."""
        try:
            backend = self._backend or self._opened(create=False)
        except TierNotAttached:
            return False  # a directory, and those have none
        return backend.retention() is not None

    def establish(self, admit: Callable[[StorageBackend], None]) -> StorageBackend:
        """Make the store the cold tier of this repository, unless it is that of another. Raises InvalidRequest.

        `admit` raises for what must not become one, before anything is written.
        """
        backend = self._opened(create=True)
        try:
            admit(backend)
        except BaseException:
            backend.close()
            raise
        try:
            backend.store(MARK, _mark(self._repository))
        except ObjectExists:
            if backend.retrieve(MARK) != _mark(self._repository):
                backend.close()
                raise InvalidRequest(
                    f"{self.address} is the cold tier of another repository",
                    cause=f"its {MARK} names another one",
                    hint="name an empty directory or prefix",
                ) from None
        return backend

    def holds_mark(self) -> bool:
        """Whether this is a cold tier of the repository already. Raises StorageUnavailable when that is not known."""
        try:
            return self._opened(create=False).retrieve(MARK) == _mark(self._repository)
        except (ObjectNotFound, StorageMissing):
            return False

    def away(self, cause: str) -> TierNotAttached:
        """The error to raise when the store is not there."""
        return TierNotAttached(
            f"the cold tier at {self.address} is not attached",
            cause=cause,
            hint=f"attach or mount what belongs at {self.address}, then repeat the command; "
            "if it has another address now, tell it with `backstay tier set --cold ADDRESS`",
        )

    def forget_reads(self) -> None:
        if (backend := self._backend) is not None:
            backend.forget_reads()

    def close(self) -> None:
        if self._backend is not None:
            self._backend.close()
            self._backend = None

    def _opened(self, *, create: bool) -> StorageBackend:
        try:
            return self._open_store(self.address, create)
        except InvalidRequest as error:
            raise self.away(str(error)) from error

    def _require_mark(self, backend: StorageBackend) -> None:
        try:
            found = backend.retrieve(MARK)
        except StorageMissing as error:
            raise self.away(str(error)) from error
        except ObjectNotFound:
            raise self.away(f"what lies there has no {MARK}: an empty mount point, or another disk") from None
        if found != _mark(self._repository):
            raise self.away("what lies there is the cold tier of another repository")


def reach(address: str, create: bool) -> StorageBackend:
    """The store at an address, with retries where an answer may get lost."""
    backend = open_backend(address, create=create)
    return backend if isinstance(backend, _AT_HAND) else Retrying(backend, clock=SystemClock())


def _mark(repository: str) -> bytes:
    return json.dumps({"cold_tier_of": repository}, separators=(",", ":")).encode()
