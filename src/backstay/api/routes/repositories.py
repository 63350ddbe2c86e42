"""The repository: what it holds, its keys, and its upkeep. A service keeps one, which is called `main`."""

from __future__ import annotations

from typing import Any, Final

from fastapi import Response
from sqlalchemy import func, select

from backstay.api.answers import answer, page
from backstay.api.call import Call, Caller
from backstay.api.endpoints import Section
from backstay.api.job_answers import accepted
from backstay.api.known import no_policy, policy_named
from backstay.api.models.base import Ident, PageOf, PageQuery
from backstay.api.models.jobs import JobDocument
from backstay.api.models.repositories import (
    AskedPrune,
    AskedUpkeep,
    AskedVerification,
    EpochDocument,
    KeysDocument,
    RepositoryDocument,
    RotateKey,
    SlotDocument,
    StatsDocument,
)
from backstay.api.paging import part_of
from backstay.catalog.models import Backup, Job
from backstay.control.access.scopes import REPOSITORY, policy_scope
from backstay.control.jobs.kinds import JobKind
from backstay.control.manager.targets import without_password
from backstay.control.scheduling.work import require_copies, require_retention
from backstay.core.clock import datetime_from_ns
from backstay.errors import NotFound
from backstay.operations.snapshots.look import stats
from backstay.repository.repository import Repository

section = Section("repositories")
MAIN: Final = "main"


@section.get("/api/repositories", needs="repo:read", answers=PageOf[RepositoryDocument])
def list_repositories(call: Caller, asked: PageQuery) -> Response:
    """List the repositories: the one that this service keeps."""
    call.require(REPOSITORY, seen="repo:read")
    shown, following = part_of([MAIN], lambda one: one, asked)
    return page([_document(call) for _ in shown], following)


@section.get("/api/repositories/{repository}", needs="repo:read", answers=RepositoryDocument, refuses=(404,))
def get_repository(call: Caller, repository: Ident) -> Response:
    """Tell about the repository, by the list of its backups."""
    _main(call, repository)
    return answer(_document(call))


@section.get(
    "/api/repositories/{repository}/stats",
    needs="repo:read",
    answers=StatsDocument,
    refuses=(404,),
    slow=True,
)
def get_stats(call: Caller, repository: Ident) -> Response:
    """Count what the repository holds, and how much compression and deduplication save."""
    _main(call, repository)
    with call.backing.browsing.repository() as opened:
        found = stats(opened)
    return answer(
        StatsDocument(
            snapshots=found.snapshots,
            packs=found.packs,
            stored_bytes=found.stored_bytes,
            data_bytes=found.data_bytes,
            meta_bytes=found.meta_bytes,
            raw_bytes=found.raw_bytes,
            index_segments=found.index_segments,
            source_bytes=found.source_bytes,
            latest_bytes=found.latest_bytes,
            compression=round(found.compression, 4),
            deduplication=round(found.deduplication, 4),
        )
    )


@section.post(
    "/api/repositories/{repository}/gc",
    needs="repo:gc",
    does="repository.gc",
    answers={202: JobDocument},
    refuses=(404,),
    creates=True,
)
def collect_garbage(call: Caller, repository: Ident, body: AskedUpkeep) -> Response:
    """Free what no backup needs. It never waits for those who write, and never takes from them."""
    _main(call, repository)
    return accepted(call, _job(call, "gc", {"dry_run": body.dry_run}, scope=REPOSITORY))


@section.post(
    "/api/repositories/{repository}/copy",
    needs="repo:write",
    does="repository.copy",
    answers={202: JobDocument},
    refuses=(404,),
    creates=True,
)
def copy_repository(call: Caller, repository: Ident) -> Response:
    """Bring the copies that the policy file names up to date: they get what they lack."""
    _main(call, repository)
    require_copies(call.backing.policies)
    return accepted(call, _job(call, "copy", {}, scope=REPOSITORY))


@section.post(
    "/api/repositories/{repository}/prune",
    needs="backup:delete",
    does="repository.prune",
    answers={202: JobDocument},
    refuses=(404,),
    creates=True,
)
def prune_repository(call: Caller, repository: Ident, body: AskedPrune) -> Response:
    """Drop the backups of a policy that its retention does not keep; `POST /api/policies/preview` tells which."""
    name = _policy(call, repository, body.policy)
    if call.backing.policies is not None:
        require_retention(name, call.backing.policies)
    return accepted(call, _job(call, "prune", {"dry_run": body.dry_run}, policy=name, scope=policy_scope(name)))


@section.post(
    "/api/repositories/{repository}/verify",
    needs="backup:validate",
    does="repository.verify",
    answers={202: JobDocument},
    refuses=(404,),
    creates=True,
)
def verify_repository(call: Caller, repository: Ident, body: AskedVerification) -> Response:
    """Verify the newest backup of each source of a policy."""
    name = _policy(call, repository, body.policy)
    kind: JobKind = "rehearsal" if body.level == "restore_test" else "verification"
    arguments = {"level": body.level, "min_bytes": body.min_bytes}
    return accepted(call, _job(call, kind, arguments, policy=name, scope=policy_scope(name)))


@section.get("/api/keys", needs="key:read", answers=KeysDocument, refuses=(404,), slow=True)
def list_keys(call: Caller) -> Response:
    """List what opens the repository, and the data keys. No secrets."""
    call.require(REPOSITORY, seen="key:read")
    with call.backing.browsing.repository() as opened:
        return answer(_keys(opened))


@section.post("/api/keys/rotate", needs="key:rotate", does="key.rotate", answers={200: KeysDocument}, refuses=(404,))
def rotate_key(call: Caller, body: RotateKey) -> Response:
    """Begin a new data key; what is stored stays readable. What compromised keys protect, `gc` rewrites."""
    call.require(REPOSITORY, seen="key:read")
    with call.backing.browsing.repository() as opened:
        keyring, clock = opened.keyring, call.backing.clock
        keyring.load()
        old = [epoch.number for epoch in keyring.epochs if not epoch.compromised]
        new = keyring.begin_epoch(clock).number
        if body.compromised:
            for number in old:
                keyring.mark_compromised(number, clock)
        call.about(f"key/{new}", compromised=old if body.compromised else [])
        return answer(_keys(opened))


def _main(call: Call, ident: str) -> None:
    """See that the repository is meant that there is. Raises NotFound, Forbidden."""
    _require_main(ident)
    call.require(REPOSITORY, seen="repo:read")


def _policy(call: Call, repository: str, name: str) -> str:
    """The policy whose backups are meant. Raises NotFound, Forbidden."""
    _require_main(repository)
    found, _ = policy_named(call, name)
    call.require(policy_scope(found), seen="backup:read", missing=no_policy(found))
    return found


def _require_main(ident: str) -> None:
    if ident != MAIN:
        raise NotFound(f"there is no repository {ident[:80]!r}", cause=f"this service keeps {MAIN!r}")


def _job(call: Call, kind: JobKind, arguments: dict[str, Any], *, scope: str, policy: str | None = None) -> Job:
    return call.backing.jobs.create(
        kind,
        arguments,
        policy=policy,
        scope=scope,
        actor=call.principal.name,
        job_id=call.new_id(),
        within=call.record,
    )


def _document(call: Call) -> RepositoryDocument:
    counted = select(
        func.count(),
        func.coalesce(func.sum(Backup.bytes), 0),
        func.coalesce(func.sum(Backup.stored_bytes), 0),
        func.count().filter(Backup.held.is_(True)),
        func.count().filter(Backup.damaged.is_(True)),
        func.max(Backup.time),
    )
    with call.backing.catalog.reading() as session:
        count, size, stored, held, damaged, newest = session.execute(counted).one()
    return RepositoryDocument(
        id=MAIN,
        address=without_password(call.backing.opener().location.address),
        backups=count,
        bytes=int(size),
        stored_bytes=int(stored),
        held=held,
        damaged=damaged,
        newest_at=newest,
    )


def _keys(opened: Repository) -> KeysDocument:
    return KeysDocument(
        slots=[
            SlotDocument(id=slot.id, kind=slot.kind, created=slot.created, note=slot.note)
            for slot in opened.slots.list()
        ],
        epochs=[
            EpochDocument(
                number=epoch.number, created_at=datetime_from_ns(epoch.created_ns), compromised=epoch.compromised
            )
            for epoch in opened.keyring.epochs
        ],
    )
