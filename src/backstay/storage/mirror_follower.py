"""One of the copies of a mirrored store that does not decide, as one process writes to it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

from backstay.core.ids import Random
from backstay.errors import (
    BackstayError,
    InsufficientSpace,
    InvalidRequest,
    ObjectExists,
    ObjectNotFound,
    StorageMissing,
    StorageUnavailable,
)
from backstay.storage.addressing import contradicts_name, is_addressed
from backstay.storage.backend import Buffer, Examine, StorageBackend
from backstay.storage.crash_order import TRANSIENT, in_crash_order
from backstay.storage.mirror_log import MirrorLog, is_marked_as_first

Warn: TypeAlias = Callable[[str], None]
REPO: Final = "repo.json"  # what makes two stores copies of one repository
_FAILURES: Final = (StorageUnavailable, InsufficientSpace)
_REFERRING: Final = ("snapshots/", "gc/", "index/")  # each to what comes behind it
_TRIES: Final = 4  # listings, when a collector deletes meanwhile


class Follower:
    """Gets what the first copy holds. From its first failure on it is left alone, as it is then: `behind`."""

    def __init__(
        self, authority: StorageBackend, backend: StorageBackend, *, warn: Warn, random: Random = os.urandom
    ) -> None:
        self._authority, self._backend, self._warn = authority, backend, warn
        self._log = MirrorLog(authority, backend.url)
        self._probe = f"probe/{random(16).hex()}-damaged"
        self._lock = threading.Lock()
        self._is_begun = False  # whether there is a repository already
        self.examine: Examine | None = None
        self.behind = False

    @property
    def url(self) -> str:
        return self._backend.url

    def admit(self) -> None:
        """Before anything is written: see that this is a copy, and a store of its own. Raises InvalidRequest."""
        self._attempt(self._require_copy)

    def catch_up(self) -> None:
        """Once, when the first copy is marked as the one that decides: send what this one lacks, whoever stored it.

        Raises InvalidRequest when this store shows that mark, and so is the first one under another name.
        """
        self._attempt(self._require_no_first)
        if self._is_begun:
            self._attempt(self._level)

    def put(self, name: str, data: Buffer) -> bool:
        """Whether the copy now has an object that the first one has."""
        return self._attempt(lambda: _place(self._backend, name, data))

    def delete(self, name: str) -> None:
        """Delete an object here, or note that this is still to be done."""
        if not self._attempt(lambda: self._backend.delete(name)):
            self._log.note_deleted(name)

    def _attempt(self, work: Callable[[], None]) -> bool:
        """Whether the copy took part; after its first failure it is not asked again by this process."""
        if self.behind:
            return False
        try:
            work()
        except _FAILURES as error:
            self._leave_behind(error)
            return False
        return True

    def _leave_behind(self, error: BackstayError) -> None:
        with self._lock:
            if not self.behind:
                self.behind = True
                self._warn(f"the copy {self.url} is left behind until it can be reached: {error}")

    def _require_copy(self) -> None:
        ours = _repo(self._authority, missing_place=True)
        # While a repository is being created there may be no place for it yet; later a missing place is a failure.
        theirs = _repo(self._backend, missing_place=ours is None)
        if theirs is not None:
            self._require_no_first()
        if ours != theirs:
            raise InvalidRequest(
                f"{self.url} is no copy of the repository at {self._authority.url}",
                cause=f"its {REPO} differs" if theirs is not None and ours is not None else f"one has no {REPO}",
                hint="`backstay copy --to` makes an empty store a copy; `backstay repair packs --from-copy` mends one",
            )
        self._is_begun = ours is not None
        if self._is_begun and self.examine is not None:
            self.examine(self._authority, self._backend)
        # Only now: a store that is asked what it can do may get an object to try it with.
        if not self._backend.capabilities.range_reads:
            raise InvalidRequest(
                f"{self.url} cannot be a copy", cause="it does not give parts of objects", hint="name another store"
            )
        self._backend.refuses_damage(self._probe)  # of one that does, a tag that differs shows no damage

    def _require_no_first(self) -> None:
        """Two that decide may both let win, a commit and its cancellation; and one under two names is no copy."""
        if _is_first(self._backend):
            raise InvalidRequest(
                f"{self.url} is or was the first copy of a mirror, and is named as another one here",
                cause="it is the same store as the first one, or copies were named in another order before",
                hint="name two different stores, and the first one first everywhere; if the other one is lost for "
                "good, `backstay copy --to` makes this one a plain copy again",
            )

    def _level(self) -> None:
        """Send all that the copy lacks; then delete what it should not have any more."""
        for _ in range(_TRIES):
            if self._send_missing():
                break
        else:
            raise StorageUnavailable(
                "what it lacks could not be sent",
                cause="objects were deleted meanwhile, again and again",
                hint="repeat the command when no collection runs",
            )
        for name in self._log.deleted():
            if not self._authority.exists(name):  # else whoever deletes it has not come to its end
                self._backend.delete(name)
                self._log.forget_deleted(name)

    def _send_missing(self) -> bool:
        """In crash order; False when something was deleted since it was listed: what took its place was not listed.

        Listed the other way round, since others may write meanwhile: what refers to something before what it refers to.
        """
        ours = {info.name for prefix in _REFERRING for info in self._authority.list(prefix)}
        others = (info.name for info in self._authority.list())
        ours.update(name for name in others if not name.startswith((*_REFERRING, *TRANSIENT)))
        for name in in_crash_order(ours - {info.name for info in self._backend.list()}):
            try:
                data = self._authority.retrieve(name)
            except ObjectNotFound:
                return False
            if contradicts_name(name, data):
                self._warn(f"{name} is damaged in {self._authority.url}; the copy {self.url} does not get it")
                continue
            if not self._send(name, data):
                return False
        return True

    def _send(self, name: str, data: bytes) -> bool:
        """Place an object; False if it was deleted since it was read, perhaps here before it came. That is noted."""
        try:
            _place(self._backend, name, data)
        finally:  # a store that failed may have it all the same
            if gone := not self._authority.exists(name):
                self._log.note_deleted(name)
        return not gone


def _is_first(backend: StorageBackend) -> bool:
    """Whether a store is marked as the one that decides; without a place, as before its first object, it is not."""
    try:
        return is_marked_as_first(backend)
    except StorageMissing:
        return False


def _repo(backend: StorageBackend, *, missing_place: bool) -> bytes | None:
    """What says which repository this is; None where there is none, or no place for one if that may be."""
    try:
        return backend.retrieve(REPO)
    except ObjectNotFound:
        return None
    except StorageMissing:
        if missing_place:
            return None
        raise


def _place(backend: StorageBackend, name: str, data: Buffer) -> None:
    """Put into a copy what the first one decided on; what else lies there under this name has lost."""
    try:
        backend.store(name, data)
    except ObjectExists:
        if is_addressed(name) or backend.retrieve(name) == bytes(data):
            return
        if name == REPO:
            raise InvalidRequest(
                f"{backend.url} holds another repository", cause=f"its {REPO} differs", hint="name an empty store"
            ) from None
        backend.store(name, data, overwrite=True)
