"""One repository in several stores, each of them a whole copy.

**The first copy decides.** Every conditional create is made there, and nowhere else: a vote of stores that may be out
of reach could be won twice. The others then get what it holds. So writing needs the first copy; reading needs any.

**A copy that fails is left behind as a whole.** From its first failure a process sends nothing more to it, so that it
stays the consistent repository that it was. Each process compares the listings of the copies before it writes anything
new, and sends what they lack, in crash order: after a failure, after a writer that died, and after one that did not
know of the copy.

**Absent is not unknown.** A name is absent if all copies say so. A listing holds what any copy that answers holds. One
that lacked a copy is good enough to back up by, since the first copy has all that was acknowledged; but it may lack
an object that the first one lost, so that this process deletes and condemns nothing any more. One that lacked the
first copy may be old: this process writes nothing any more.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final, TypeAlias, TypeVar

from backstay.core.ids import Random
from backstay.errors import (
    InvalidRequest,
    ObjectExists,
    ObjectNotFound,
    StorageMissing,
    StorageUnavailable,
)
from backstay.storage.addressing import contradicts_name, is_addressed
from backstay.storage.archive import Archive
from backstay.storage.backend import Buffer, Capabilities, Examine, ObjectInfo, StorageBackend
from backstay.storage.crash_order import TRANSIENT, is_transient
from backstay.storage.mirror_archive import MirrorArchive
from backstay.storage.mirror_follower import Follower, Warn
from backstay.storage.mirror_log import PREFIX as MARKS
from backstay.storage.mirror_log import mark_as_first

_Infos: TypeAlias = Iterator[ObjectInfo]
_Failure: TypeAlias = tuple[StorageBackend, StorageUnavailable]
T = TypeVar("T")

_CONDEMNS: Final = "gc/"


class Mirrored(StorageBackend):
    """A store that is as safe as several. `quorum` copies must have an object before it counts as stored.

    `quorum` None means all of them. Reads take the first copy that has whole bytes; what this class cannot judge, the
    repository does, with `copies`. `warn` is told, once each, which copies are out of reach.
    """

    def __init__(
        self,
        copies: Sequence[StorageBackend],
        *,
        quorum: int | None = None,
        warn: Warn = lambda text: None,  # noqa: ARG005
        random: Random = os.urandom,
    ) -> None:
        if len({copy.url for copy in copies}) < max(2, len(copies)):
            raise InvalidRequest("a mirror needs two different stores or more", hint="name another store for the copy")
        self._quorum = len(copies) if quorum is None else quorum
        if not 1 <= self._quorum <= len(copies):
            raise InvalidRequest(f"{len(copies)} copies have no quorum of {quorum}")
        self._all = tuple(copies)
        self._authority = copies[0]
        self._others = [Follower(copies[0], copy, warn=warn, random=random) for copy in copies[1:]]
        self._reading = self._all  # in the order in which they are asked
        self._is_prepared = False
        self._unseen: set[str] = set()  # copies that a listing of this process lacked
        self._warn = warn
        self._archive: Archive | None = None
        self._lock = threading.RLock()

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override] # may take requests, and is never assigned
        """What the first copy can do, which decides. The others are asked when they are first written to."""
        self._require_authority()
        return replace(self._authority.capabilities, proven=False)

    @property
    def parallel(self) -> int:  # type: ignore[override] # never assigned
        """As the copy that gains most by it. The others bear it: calls from several threads are in the contract.

        Crash order bears it too. What refers to an object is stored when the call that stored the object has returned,
        and before a call returns that failed at a copy, the copy is marked as left behind.
        """
        return max(copy.parallel for copy in self._all)

    @property
    def url(self) -> str:
        return self._authority.url

    def copies(self) -> Sequence[StorageBackend]:
        return self._all

    def forget_reads(self) -> None:
        for copy in self._all:
            copy.forget_reads()

    def examine_copies(self, examine: Examine) -> None:
        for follower in self._others:
            follower.examine = examine

    def archive(self) -> Archive | None:
        """How to thaw what no copy gives at once, if there is a copy that freezes."""
        with self._lock:
            if self._archive is None:
                places = [(copy, copy.archive()) for copy in self._all]
                if any(archive is not None for _, archive in places):
                    self._archive = MirrorArchive(places)
            return self._archive

    def refuses_damage(self, name: str) -> bool:
        """Whether the first copy does. The others try it for themselves when they are first written to."""
        self._require_authority()
        return self._authority.refuses_damage(name)

    # --- writing ---

    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        self._require_authority()
        if is_transient(name):
            self._authority.store(name, data, overwrite=overwrite)
            return
        if name.startswith(_CONDEMNS):
            self._require_all()
        self._prepare()
        try:
            self._authority.store(name, data, overwrite=overwrite)
        except ObjectExists:
            if is_addressed(name):  # whoever stored it may not have come to the other copies
                self._spread(name, data)
            raise
        self._spread(name, data)

    def delete(self, name: str) -> None:
        if is_transient(name):
            self._authority.delete(name)
            return
        self._require_authority()
        self._require_all()
        self._prepare()
        # The others come first: a crash before the first copy leaves an object that they are sent again. And they
        # come once more: meanwhile another process may have sent it to them, because the first copy still had it.
        for follower in self._others:
            follower.delete(name)
        self._authority.delete(name)
        for follower in self._others:
            if not follower.behind:
                follower.delete(name)

    def _spread(self, name: str, data: Buffer) -> None:
        """Give the other copies what the first one holds."""
        done = 1
        for follower in self._others:
            done += follower.put(name, data)
        if done < self._quorum:
            behind = [follower.url for follower in self._others if follower.behind]
            raise StorageUnavailable(
                f"{name} was stored in {done} of {len(self._all)} copies",
                cause=f"{self._quorum} are wanted; out of reach: {', '.join(behind)}",
                hint="make the other copies reachable, or ask for a smaller quorum; what is missing is sent later "
                "(`backstay copy --to ADDRESS` begins a copy that is new)",
            )

    def _prepare(self) -> None:
        """Once per process, before its first object."""
        with self._lock:
            if self._is_prepared:
                return
            for follower in self._others:
                follower.admit()
            mark_as_first(self._authority)
            for follower in self._others:
                follower.catch_up()
            self._is_prepared = True

    # --- what this process may still do ---

    def _require_authority(self) -> None:
        if self._authority.url in self._unseen:
            raise StorageUnavailable(
                f"nothing is written to {self.url}",
                cause="it was out of reach when this process looked around, and the other copies may be old",
                hint="repeat the command when it can be reached",
            )

    def _require_all(self) -> None:
        if self._unseen:
            raise StorageUnavailable(
                "nothing is deleted while a copy cannot be seen",
                cause=f"out of reach: {', '.join(sorted(self._unseen))}; it may hold what the others lost",
                hint="make it reachable and repeat the command",
            )

    # --- reading ---

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        damaged: list[bytes] = []

        def read(copy: StorageBackend) -> bytes:
            data = copy.retrieve(name, start=start, length=length)
            if not start and length is None and contradicts_name(name, data):
                damaged.append(data)
                raise ObjectNotFound(name)
            return data

        try:
            return self._from_first(name, read)
        except ObjectNotFound:
            if damaged:
                return damaged[0]  # who asked for it sees the damage, and knows the words for it
            raise

    def stat(self, name: str) -> ObjectInfo:
        return self._from_first(name, lambda copy: copy.stat(name))

    def _from_first(self, name: str, read: Callable[[StorageBackend], T]) -> T:
        """From the first copy that has it. Absent only if all say so: raises StorageUnavailable else."""
        if is_transient(name):
            return read(self._authority)
        failed: list[_Failure] = []
        missing = ObjectNotFound(name)
        for copy in self._reading:
            try:
                result = read(copy)
            except ObjectNotFound as error:
                missing = error
            except StorageUnavailable as error:
                failed.append((copy, error))
            else:
                self._ask_last([copy for copy, _ in failed])
                self._note_missing(failed)
                return result
        if failed:
            raise failed[0][1]
        raise missing

    def _ask_last(self, copies: Sequence[StorageBackend]) -> None:
        """Copies that failed where another helped: until those fail as well, each try would cost its whole deadline."""
        if copies:
            # A new tuple, as others read meanwhile: a list that is being sorted looks empty to them, and "no copy has
            # it" is what they would tell. Of two new orders at once one is lost, which costs one more try.
            self._reading = tuple(sorted(self._reading, key=lambda copy: copy in copies))

    def _note_missing(self, failed: Sequence[_Failure]) -> None:
        """Where the first copy was, there is nothing, and another one shows that there should be: an unmounted disk.

        Some stores make their place again for the first object that they get.
        """
        for copy, error in failed:
            if copy is self._authority and isinstance(error, StorageMissing):
                self._note_unseen(copy, error)

    def list(self, prefix: str = "") -> _Infos:
        if prefix.startswith(TRANSIENT):
            return self._authority.list(prefix)
        found: dict[str, ObjectInfo] = {}
        failed: list[StorageUnavailable] = []
        answered = False
        # One that was out of reach is not waited for again: what this process may do does not change any more.
        for copy in sorted(self._all, key=lambda copy: copy.url in self._unseen):
            if answered and copy.url in self._unseen:
                continue
            try:
                infos = [*copy.list(prefix)]
            except StorageUnavailable as error:
                failed.append(error)
                self._note_unseen(copy, error)
                continue
            answered = True
            for info in infos:
                if self._is_listed(copy, info.name):
                    found.setdefault(info.name, info)
        if not answered:
            raise failed[0]
        return iter(found.values())

    def _is_listed(self, copy: StorageBackend, name: str) -> bool:
        """Not the marks of mirroring itself, and what means something in the first copy only from there."""
        return not name.startswith(MARKS) if copy is self._authority else not is_transient(name)

    def _note_unseen(self, copy: StorageBackend, error: StorageUnavailable) -> None:
        with self._lock:
            if copy.url not in self._unseen:
                self._unseen.add(copy.url)
                self._warn(f"the copy {copy.url} cannot be seen: {error}")

    # --- the end ---

    def sweep_temporaries(self, older_than_s: float) -> int:
        return sum(copy.sweep_temporaries(older_than_s) for copy in self._all if copy.url not in self._unseen)

    def close(self) -> None:
        for each in self._all:
            each.close()
