"""The interface of every store: four methods to write, semantics spelled out once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeAlias

from backstay.errors import ObjectNotFound
from backstay.storage.archive import Archive
from backstay.storage.names import check_name
from backstay.storage.retention import Retention

Buffer: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """One object of a listing: its name, size in bytes, and when the store says it was written (ns since 1970)."""

    name: str
    size: int
    modified_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a store can do; probed before a repository is written to, not believed.

    `checksums`: it refuses bytes that do not fit the checksum sent with them. `proven`: tests have shown all of this
    for every store of the kind, so that no probe is needed.
    """

    atomic_create: bool = True
    range_reads: bool = True
    checksums: bool = False
    proven: bool = field(default=False, compare=False)
    # Without it, a reader may fail or find nothing while an object is replaced; never does it get a part or a mixture.
    atomic_replace: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What fits into the place where a store lies, and what of it is left for us; bytes."""

    total: int
    free: int


Examine: TypeAlias = Callable[["StorageBackend", "StorageBackend"], None]


class StorageBackend(ABC):
    """Keeps write-once objects under names like `packs/ab/abcd…` (ASCII letters, digits, `.`, `-`, `_`, `/`).

    All methods may be called from several threads at once. Errors are those of `backstay.errors`, never the
    library's own: ObjectNotFound, ObjectExists, InsufficientSpace, StorageUnavailable. A backend tries nothing twice,
    least of all a create: `backstay.storage.retrying` does, and knows what a lost answer means.
    """

    capabilities: Capabilities = Capabilities()
    """May be a property that asks the store, and tries it out where that makes its place: for those about to write.

    So it raises StorageUnavailable, and nobody asks who only opens or reads.
    """
    parallel: int = 1
    """Calls at once from which on more are no faster: 1 where the disk or one connection is the limit."""
    deletes_at_once: int = 1
    """How many objects `delete_all` removes in about the time that one takes."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The address, without secrets, for messages."""

    @abstractmethod
    def store(self, name: str, data: Buffer, *, overwrite: bool = False) -> None:
        """Keep `data` under `name`: durable when it returns, and all or nothing if it does not.

        Without `overwrite` exactly one of several racing callers succeeds; the others get ObjectExists.
        """

    @abstractmethod
    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The object's bytes from `start`, exactly `length` of them, or to the end when `length` is None.

        Fewer bytes than asked for are an error (StorageUnavailable), never a short answer. ObjectNotFound only
        on proof.
        """

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove an object, durably; one that is already gone is fine."""

    def delete_all(self, names: Sequence[str]) -> None:
        """Remove several objects, durably when it returns; an error or a crash leaves some of them."""
        for name in names:
            self.delete(name)

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose name starts with `prefix`, in any order.

        Complete or an exception: an incomplete listing raises, because collection trusts it. An object that was
        stored before the call and not deleted is listed. Temporary names of unfinished stores are not.
        """

    def stat(self, name: str) -> ObjectInfo:
        """Size and time of one object. Raises ObjectNotFound."""
        check_name(name)  # a listing takes more for a prefix than is a name
        for info in self.list(name):
            if info.name == name:
                return info
        raise ObjectNotFound(name)

    def exists(self, name: str) -> bool:
        """Whether the object is there; a store that cannot tell raises."""
        try:
            self.stat(name)
        except ObjectNotFound:
            return False
        return True

    def open_file(self, name: str) -> int | None:  # noqa: ARG002 - most backends are not on this machine
        """A descriptor to read an object from that is a file of this machine; None where there is no such thing.

        Raises as `retrieve` does. The caller closes it.
        """
        return None

    def copies(self) -> Sequence[StorageBackend]:
        """The whole copies of this store, the one that is read first in front; most have none besides themselves.

        Whoever finds that an object does not decode asks each of them for it (`backstay.storage.copies`).
        """
        return (self,)

    def forget_reads(self) -> None:  # noqa: B027 - most backends keep nothing of what they read
        """Ask the store itself from now on, also for what was read before: that may have been damaged on its way."""

    def examine_copies(self, examine: Examine) -> None:  # noqa: B027 - most backends have no other copies
        """Have `examine(first, copy)` called for each other copy before this process first writes to it.

        An InvalidRequest that it raises refuses what was to be written.
        """

    def archive(self) -> Archive | None:
        """How objects are thawed, for a store that freezes what it keeps; None for one that gives it at once."""
        return None

    def retention(self) -> Retention | None:
        """How locks are extended and holds put, for a store that locks what must stay; None for one that does not."""
        return None

    def refuses_damage(self, name: str) -> bool:  # noqa: ARG002 - most backends send no checksum
        """Try whether the store refuses bytes that do not fit the checksum sent with them; `name` is free for it."""
        return False

    def room(self) -> Room | None:
        """How large the place is and what is left in it; None where that is not known."""
        return None

    def clock_ns(self) -> int | None:
        """What the store's clock shows now (ns since 1970); None where only the times of its objects tell."""
        return None

    def sweep_temporaries(self, older_than_s: float) -> int:  # noqa: ARG002 - most backends have none
        """Remove what interrupted stores of dead processes left behind, if it is this old; how many there were.

        How old it is goes by the store's own clock (`backstay.storage.sweeping`).
        """
        return 0

    def close(self) -> None:  # noqa: B027 - most backends hold nothing
        """Let go of connections; the backend is not used afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
