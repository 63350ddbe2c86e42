"""Set the cold tier of a repository, move packs into it, and bring them back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from backstay.core.events import EventSink, Progress, Started, finished, ignore
from backstay.core.ids import is_digest
from backstay.core.pipeline import Workers
from backstay.errors import BackstayError, CorruptedBackup, InvalidRequest, ObjectNotFound
from backstay.operations.findings import Finding
from backstay.operations.tiers.admission import require_no_repository
from backstay.operations.tiers.cold_packs import THAW_DAYS, ColdPlace
from backstay.repository.format import pack_name
from backstay.repository.logs.tiers import TierLog, TierRule, cold_store, refuse_password
from backstay.repository.repository import Repository
from backstay.storage.backend import StorageBackend
from backstay.storage.probing import probe_capabilities
from backstay.storage.tiered import MOVABLE, Tiered

IN_FLIGHT: Final = 48 << 20  # bytes of packs under way from one tier to the other
_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TierStatus:
    """Where the packs of a repository are; `attached` is None when the cold store gives no answer."""

    cold: str | None
    after_s: int
    attached: bool | None
    hot_packs: int
    hot_bytes: int
    cold_packs: int
    cold_bytes: int
    damage: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePlan:
    """Packs to be moved, name and size in bytes each; `waiting` are too young."""

    packs: tuple[tuple[str, int], ...]
    waiting: int = 0

    @property
    def bytes(self) -> int:
        return sum(size for _, size in self.packs)


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveResult:
    """What a move or a recall did; sizes in bytes. A pack with a finding stays where it was."""

    packs: int
    bytes: int
    findings: tuple[Finding, ...] = ()


def set_tier(repository: Repository, cold: str, after_s: int) -> None:
    """Let packs older than this belong at `cold`, which is tried out first. Open the repository again to use it.

    Raises InvalidRequest for a store with a repository, this one or another; when packs lie in another cold store that
    this is not; StorageUnavailable, StorageUnfit.
    """
    refuse_password(cold)
    hot = _hot(repository)
    store = cold_store(cold, repository.keyring, repository.environment.open_cold)
    if repository.tiered is not None and repository.tiered.only_cold() and not store.holds_mark():
        raise InvalidRequest(
            f"{cold} is not the cold tier that holds packs of this repository",
            cause=f"they lie at {repository.tiered.cold.address}",
            hint="bring them back with `backstay tier recall` and `backstay tier remove`, or copy that store there",
        )
    with store.establish(require_no_repository) as backend:
        _require_readable(backend)
    TierLog(hot, repository.keyring).write(cold, after_s, repository.clock)


def remove_tier(repository: Repository) -> None:
    """End the cold tier. Raises InvalidRequest while a pack lies in it only."""
    tiered = repository.tiered
    if tiered is None:
        raise _no_tier()
    if left := tiered.only_cold():
        raise InvalidRequest(
            "the cold tier is in use",
            cause=f"{len(left)} packs lie there only",
            hint="bring them back with `backstay tier recall`",
        )
    # The record comes first: from then on no move begins. What notes a crash leaves are about packs that are hot.
    TierLog(tiered.inner, repository.keyring).write(None, 0, repository.clock)
    for name, info in tiered.noted().items():
        tiered.forget(name, info.size)


def tier_status(repository: Repository) -> TierStatus:
    """Where packs are, by what the hot store knows."""
    hot = _hot(repository)
    rule = TierLog(hot, repository.keyring).read() or TierRule(number=0)
    sizes = [info.size for info in hot.list(MOVABLE)]
    cold = [info.size for info in repository.tiered.only_cold().values()] if repository.tiered is not None else []
    return TierStatus(
        cold=rule.cold,
        after_s=rule.after_s,
        attached=_is_attached(repository.tiered),
        hot_packs=len(sizes),
        hot_bytes=sum(sizes),
        cold_packs=len(cold),
        cold_bytes=sum(cold),
        damage=rule.damage,
    )


def plan_move(repository: Repository) -> MovePlan:
    """Which packs are old enough. Raises InvalidRequest without a cold tier.

    Only packs that the index names and no collection condemned: others may be gone soon.
    """
    tiered = _tiered(repository)
    rule = TierLog(tiered.inner, repository.keyring).read()
    assert rule is not None
    repository.reload_index()
    staying = {pack_name(pack.kind, pack.digest) for _, pack in repository.index.packs()}
    staying -= {f"{MOVABLE}{digest.hex()[:2]}/{digest.hex()}" for digest in repository.collections.condemned()}
    hot = [info for info in tiered.inner.list(MOVABLE) if info.name in staying]
    newest = repository.clock.now_ns() - rule.after_s * _NS
    old = sorted(
        (info.modified_ns, info.name, info.size) for info in hot if not rule.after_s or info.modified_ns <= newest
    )
    return MovePlan(packs=tuple((name, size) for _, name, size in old), waiting=len(hot) - len(old))


def run_move(repository: Repository, plan: MovePlan, *, events: EventSink = ignore) -> MoveResult:
    """Move the packs of a plan, oldest first. Running it again goes on where it was interrupted.

    Raises TierNotAttached, StorageUnavailable, InsufficientSpace; InvalidRequest when a repository lies in the cold
    store; a damaged pack is a finding and stays.
    """
    tiered = _tiered(repository)
    require_no_repository(tiered.cold.open())
    _settle(repository, tiered)
    return _Transport(repository, events, "move to the cold tier").run(plan.packs, tiered.move)


def plan_recall(repository: Repository, packs: Iterable[str] | None = None) -> MovePlan:
    """Which packs would be brought back: all that are only cold, or those of these names."""
    cold = _tiered(repository).only_cold()
    chosen = sorted(cold) if packs is None else sorted(set(packs) & cold.keys())
    return MovePlan(packs=tuple((name, cold[name].size) for name in chosen))


def run_recall(
    repository: Repository,
    plan: MovePlan,
    *,
    days: int = THAW_DAYS,
    wait: bool = True,
    events: EventSink = ignore,
) -> MoveResult:
    """Copy packs back, thawed before if need be.

    Raises TierNotAttached, ThawPending without `wait`, StorageUnavailable, InsufficientSpace.
    """
    tiered = _tiered(repository)
    place = ColdPlace.of(repository)
    if place is None:  # another program has brought everything back
        return MoveResult(packs=0, bytes=0)
    place.make_readable(place.look_at(dict(plan.packs)), repository.clock, days=days, wait=wait, events=events)
    return _Transport(repository, events, "recall from the cold tier").run(plan.packs, tiered.recall)


def _settle(repository: Repository, tiered: Tiered) -> None:
    """What a move that was interrupted left in the cold store without a note.

    What the hot store still has is moved again when its time comes. What it has not was deleted there while the cold
    store was away, by a verdict; or its note got lost, and is written again.
    """
    known = tiered.noted().keys() | {info.name for info in tiered.inner.list(MOVABLE)}
    deleted = repository.collections.deleted()
    for name, info in tiered.really_cold().items():
        digest = name.rpartition("/")[2]
        if name in known or not is_digest(digest):
            continue
        if bytes.fromhex(digest) in deleted:
            tiered.cold.open().delete(name)
        else:
            tiered.note(name, info.size)


@dataclass(slots=True)
class _Transport:
    """Packs on their way, several at a time."""

    repository: Repository
    events: EventSink
    title: str
    findings: list[Finding] = field(default_factory=list)

    def run(self, packs: tuple[tuple[str, int], ...], carry: Callable[[str], int]) -> MoveResult:
        total = sum(size for _, size in packs)
        self.events(Started(operation=self.title, total_files=len(packs), total_bytes=total))
        done = size = 0

        def one(pack: tuple[str, int]) -> int:
            try:
                return carry(pack[0])
            except ObjectNotFound:  # another program moved or deleted it meanwhile
                return 0
            except CorruptedBackup as error:
                self._find(pack[0], error)
                return 0

        with Workers(self.repository.environment.threads, "tier") as workers:
            for moved in workers.ordered(one, packs, weigh=lambda pack: pack[1], limit=IN_FLIGHT):
                done, size = done + (moved > 0), size + moved
                self.events(Progress(files=done, bytes=size))
        finished(self.events, self.title)
        return MoveResult(packs=done, bytes=size, findings=tuple(self.findings))

    def _find(self, name: str, error: BackstayError) -> None:
        self.findings.append(
            Finding(check="integrity", severity="error", subject=name, message=str(error), hint=error.hint)
        )


def _tiered(repository: Repository) -> Tiered:
    if repository.tiered is None:
        raise _no_tier()
    return repository.tiered


def _no_tier() -> InvalidRequest:
    return InvalidRequest(
        "the repository has no cold tier", cause="none was set", hint="set one with `backstay tier set --cold ADDRESS`"
    )


def _hot(repository: Repository) -> StorageBackend:
    return repository.backend if repository.tiered is None else repository.tiered.inner


def _is_attached(tiered: Tiered | None) -> bool | None:
    if tiered is None:
        return None
    try:
        return tiered.cold.is_attached()
    except BackstayError:
        return None


def _require_readable(backend: StorageBackend) -> None:
    if not probe_capabilities(backend).range_reads:
        raise InvalidRequest(
            f"{backend.url} cannot be a cold tier", cause="it does not give parts of objects", hint="use another store"
        )
