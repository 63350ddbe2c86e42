"""What lies in the cold tier and is about to be read: said, thawed and waited for before anything is written."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Self

from backstay.core.clock import Clock
from backstay.core.events import EventSink, Progress, Started, finished
from backstay.core.pipeline import Workers
from backstay.core.quantities import format_duration, format_size
from backstay.errors import ObjectNotFound, ThawPending
from backstay.repository.blobs.contents import all_chunk_ids
from backstay.repository.format import pack_name
from backstay.repository.nodes import Node
from backstay.repository.repository import Repository
from backstay.storage.archive import Archive, ThawState
from backstay.storage.backend import StorageBackend
from backstay.storage.cold_store import ColdStore
from backstay.storage.tiered import MOVABLE

THAW_DAYS: Final = 7  # how long thawed packs stay readable, unless told otherwise
FIRST_POLL_S: Final = 30.0
LONGEST_POLL_S: Final = 900.0
POLL_BATCH: Final = 64  # packs that are asked about before it is decided whether to ask about more
_SLICE_S: Final = 2.0  # of a pause: who watches may stop the program between two of them
_ASKING: Final = 8  # questions about the state of packs at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdNeed:
    """Packs that must be read from the cold tier, by name, with their sizes in bytes.

    `frozen` are those that nobody asked for yet, `thawing` those on their way; `usual_s` is what that takes.
    `attached` is whether the store is there at all; if not, nothing more is known.
    """

    address: str
    packs: Mapping[str, int]
    attached: bool = True
    frozen: tuple[str, ...] = ()
    thawing: tuple[str, ...] = ()
    usual_s: float = 0.0

    @property
    def bytes(self) -> int:
        return sum(self.packs.values())

    @property
    def bytes_to_wait_for(self) -> int:
        return sum(self.packs[name] for name in (*self.frozen, *self.thawing))


@dataclass(frozen=True, slots=True)
class ColdPlace:
    """Where the packs of a repository are that may not be readable at once: its cold tier, or all of an archive."""

    address: str
    sizes: Mapping[str, int]
    backend: StorageBackend
    cold: ColdStore | None

    @classmethod
    def of(cls, repository: Repository) -> Self | None:
        """None when every pack can be read."""
        sizes = repository.distant_packs()
        if not sizes:
            return None
        cold = repository.tiered.cold if repository.tiered is not None else None
        return cls(repository.backend.url if cold is None else cold.address, sizes, repository.backend, cold)

    def look_at(self, packs: Mapping[str, int]) -> ColdNeed:
        """The state of some of them. Raises StorageUnavailable when the store gives no answer."""
        if self.cold is not None and not self.cold.is_attached():
            return ColdNeed(address=self.address, packs=packs, attached=False)
        archive = self.backend.archive()
        if archive is None:
            return ColdNeed(address=self.address, packs=packs)
        states = _states(archive, packs)
        return ColdNeed(
            address=self.address,
            packs=packs,
            frozen=tuple(name for name, state in states.items() if state == "cold"),
            thawing=tuple(name for name, state in states.items() if state == "thawing"),
            usual_s=archive.usual_s,
        )

    def require_attached(self, need: ColdNeed) -> None:
        """Raises TierNotAttached, with what must be attached and how much is needed of it, unless it is attached."""
        if self.cold is not None and not need.attached:
            raise self.cold.away(
                f"{len(need.packs)} packs with {format_size(need.bytes)} are needed that lie there only"
            )

    def make_readable(self, need: ColdNeed, clock: Clock, *, days: int, wait: bool, events: EventSink) -> None:
        """Return when all these packs can be read; what is frozen is asked for in one batch.

        Who is stopped while it waits does the same again, and goes on: the store remembers what it was asked for.
        Raises TierNotAttached; ThawPending without `wait`.
        """
        self.require_attached(need)
        while waiting := {*need.frozen, *need.thawing}:
            archive = self.backend.archive()
            assert archive is not None
            if need.frozen:
                archive.thaw(need.frozen, days)
            if not wait:
                raise ThawPending(
                    f"{len(waiting)} packs with {format_size(need.bytes_to_wait_for)} are being thawed",
                    cause=f"the archive at {need.address} usually needs {format_duration(need.usual_s)}",
                    hint=f"repeat the command then: they stay readable for {days} days",
                )
            _wait(archive, need, waiting, clock, days=days, events=events)
            # What was readable at first, and only that, may have frozen again meanwhile.
            need = self.look_at({name: size for name, size in need.packs.items() if name not in waiting})


def make_packs_readable(
    repository: Repository, names: Iterable[str], *, days: int = THAW_DAYS, wait: bool = True, events: EventSink
) -> None:
    """Return when these objects of a repository can be read, of which some may be cold packs.

    Raises TierNotAttached; ThawPending without `wait`.
    """
    wanted = [name for name in names if name.startswith(MOVABLE)]
    place = ColdPlace.of(repository) if wanted else None
    packs = {name: place.sizes[name] for name in wanted if name in place.sizes} if place is not None else {}
    if place is not None and packs:
        place.make_readable(place.look_at(packs), repository.clock, days=days, wait=wait, events=events)


def make_readable(repository: Repository, need: ColdNeed | None, *, days: int, wait: bool, events: EventSink) -> None:
    """Return when what is needed of the cold packs of a repository can be read; as `ColdPlace.make_readable`."""
    place = ColdPlace.of(repository) if need is not None else None
    if place is not None and need is not None:
        place.make_readable(need, repository.clock, days=days, wait=wait, events=events)


class ColdPacks:
    """The packs of a repository that may not be readable at once, and which of them are needed."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self.place = ColdPlace.of(repository)
        self._needed: dict[str, int] = {}
        self._seen: set[int] = set()

    def __bool__(self) -> bool:
        return self.place is not None

    def need_file(self, node: Node) -> None:
        """This file will be read. Raises CorruptedBackup when it is not known where its data lies."""
        if node.content is not None:
            for chunk in all_chunk_ids(node.content, self._repository.reader):
                self.need_pack(self._repository.reader.place(chunk).pack)

    def need_pack(self, number: int) -> None:
        """This pack will be read."""
        if number in self._seen or self.place is None:
            return
        self._seen.add(number)
        info = self._repository.index.pack(number)
        name = pack_name(info.kind, info.digest)
        if name in self.place.sizes:
            self._needed[name] = self.place.sizes[name]

    def needed(self) -> ColdNeed | None:
        """What was said to be needed, with its state as it is now; None if nothing of it is cold."""
        return None if self.place is None or not self._needed else self.place.look_at(self._needed)


def _states(archive: Archive, names: Iterable[str]) -> dict[str, ThawState]:
    ordered = sorted(names)
    with Workers(_ASKING, "thaw") as workers:
        found = workers.ordered(lambda name: _state(archive, name), ordered, weigh=lambda name: 1, limit=256)  # noqa: ARG005
        return dict(zip(ordered, found, strict=True))


def _state(archive: Archive, name: str) -> ThawState:
    try:
        return archive.thaw_state(name)
    except ObjectNotFound:  # nothing to wait for: whoever reads it tells what is lost with it
        return "ready"


def _wait(
    archive: Archive, need: ColdNeed, waiting: Iterable[str], clock: Clock, *, days: int, events: EventSink
) -> None:
    """Ask again and again, less and less often, for as long as something is missing."""
    left = deque(sorted(waiting))
    total, total_bytes = len(left), need.bytes_to_wait_for
    events(Started(operation="thaw", total_files=total, total_bytes=total_bytes))
    pause = FIRST_POLL_S
    while left:
        bytes_left = sum(need.packs[name] for name in left)
        progress = Progress(files=total - len(left), bytes=total_bytes - bytes_left)
        until = clock.monotonic() + pause
        while (rest := until - clock.monotonic()) > 0:
            events(progress)
            clock.sleep(min(rest, _SLICE_S))
        pause = min(pause * 1.5, LONGEST_POLL_S)
        _look_again(archive, left, days)
    events(Progress(files=total, bytes=total_bytes))
    finished(events, "thaw")


def _look_again(archive: Archive, left: deque[str], days: int) -> None:
    """Take away what can be read by now; what is frozen, though it was asked for, is asked for again.

    A question costs money, and all of them are needed: while some are not ready, it does not matter whether others
    are. So a round ends at the first batch of which none is, and begins with others the next time.
    """
    for _ in range(-(-len(left) // POLL_BATCH)):
        batch = [left.popleft() for _ in range(min(POLL_BATCH, len(left)))]
        states = _states(archive, batch)
        missing = [name for name, state in states.items() if state in ("cold", "thawing")]
        left.extend(missing)
        if frozen := [name for name in missing if states[name] == "cold"]:
            archive.thaw(frozen, days)  # its job failed, or it froze again while this program was stopped
        if len(missing) == len(batch):
            break
