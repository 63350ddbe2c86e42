"""Backups: asked for, listed, shown, verified, held, deleted."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response

from backstay.api.answers import answer, done, page
from backstay.api.backup_answers import backup_document, detail_of, manifest_document
from backstay.api.call import Caller
from backstay.api.endpoints import Section
from backstay.api.job_answers import accepted
from backstay.api.known import backup_meant, no_policy, policy_named, run_scope, sources_meant, was_deleted
from backstay.api.models.backups import (
    BackupDetail,
    BackupDocument,
    BackupQuery,
    CreateBackup,
    HoldBackup,
    ManifestDocument,
    ValidateBackup,
)
from backstay.api.models.base import Ident, PageOf, WholeId
from backstay.api.models.jobs import JobDocument
from backstay.api.versions import etag_of
from backstay.catalog.backup_search import BackupFilters, scope_of
from backstay.catalog.models import Backup
from backstay.control.access.scopes import policy_scope
from backstay.operations.retention.holds import clear_hold, set_hold

section = Section("backups")


@section.post(
    "/api/backup/create",
    needs="backup:create",
    does="backup.create",
    answers={202: JobDocument},
    refuses=(404,),
    creates=True,
)
def create_backup(call: Caller, body: CreateBackup) -> Response:
    """Run a policy, or some of its sources, now.

    Only what the policy file names is backed up: no request can name other paths or commands.
    """
    name, policy = policy_named(call, body.policy)
    call.require_somewhere_in(policy_scope(name), seen="backup:read", missing=no_policy(name))
    sources = sources_meant(call, name, policy, body.sources)
    call.require(scope := run_scope(name, sources), seen="backup:read", missing=no_policy(name))
    call.about(f"policy/{name}", type=body.type, sources=sources)
    job = call.backing.jobs.create(
        "backup",
        {
            "type": body.type,
            "sources": sources,
            "tags": body.tags,
            "description": body.description,
            "retention_days": body.retention_days,
            "dry_run": body.dry_run,
        },
        policy=name,
        scope=scope,
        actor=call.principal.name,
        priority=body.priority,
        job_id=call.new_id(),
        within=call.record,
    )
    return accepted(call, job)


@section.get("/api/backup/list", needs="backup:read", answers=PageOf[BackupDocument])
def list_backups(call: Caller, asked: Annotated[BackupQuery, Query()]) -> Response:
    """List backups, the newest first."""
    chosen = asked.model_dump(exclude={"limit", "cursor"})
    found = call.backing.index.page(BackupFilters(**chosen, scopes=call.scopes), asked.limit, asked.cursor)
    return page([backup_document(backup) for backup in found.items], found.next)


@section.get("/api/backup/{backup}", needs="backup:read", answers=BackupDetail, refuses=(404,))
def get_backup(call: Caller, backup: Ident) -> Response:
    """Tell about one backup, by its id, the beginning of that, or the name of its source for the newest of it."""
    found = backup_meant(call, backup)
    return answer(detail_of(found), etag=etag_of(found.id, int(found.held)))


@section.get(
    "/api/backup/{backup}/manifest",
    needs="backup:read",
    answers=ManifestDocument,
    refuses=(404,),
    slow=True,
)
def get_manifest(call: Caller, backup: Ident) -> Response:
    """Tell what the repository itself says of a backup: its digest, where it comes from, and what it needs."""
    found = backup_meant(call, backup)
    with call.backing.browsing.repository() as repository:
        return answer(manifest_document(repository, found.id))


@section.delete("/api/backup/{backup}", needs="backup:delete", does="backup.delete", refuses=(409, 412))
def delete_backup(call: Caller, backup: WholeId) -> Response:
    """Delete a backup, by its whole id; one that is held stays. Done again it changes nothing.

    `gc` frees the space later. A name, or the beginning of an id, would mean another backup the next time.

    Order: the repository's record first, which decides; then the list. A crash between leaves a row that the next
    refresh takes away.
    """
    if was_deleted(call, backup):
        return done()
    found = backup_meant(call, backup)
    call.match(found.id, int(found.held))
    with call.backing.browsing.repository() as repository:
        repository.snapshots.drop(found.id, f"deleted by {call.principal.name}", call.backing.clock)
        with call.backing.catalog.session() as session:
            call.backing.index.removed(session, repository, [found.id])
            call.record(session)
    return done()


@section.post(
    "/api/backup/{backup}/validate",
    needs="backup:validate",
    does="backup.validate",
    answers={202: JobDocument},
    refuses=(404,),
    creates=True,
)
def validate_backup(call: Caller, backup: Ident, body: ValidateBackup) -> Response:
    """Verify a backup: its records, its packs, all of its data, or by restoring it into a scratch place."""
    found = backup_meant(call, backup)
    job = call.backing.jobs.create(
        "rehearsal" if body.level == "restore_test" else "verification",
        {"backups": [found.id], "level": body.level, "min_bytes": body.min_bytes},
        policy=found.policy,
        scope=scope_of(found),
        actor=call.principal.name,
        backup_id=found.id,
        job_id=call.new_id(),
        within=call.record,
    )
    return accepted(call, job)


@section.post(
    "/api/backup/{backup}/hold", needs="hold:set", does="hold.set", answers={200: BackupDocument}, refuses=(404, 409)
)
def hold_backup(call: Caller, backup: Ident, body: HoldBackup) -> Response:
    """Hold a backup: nobody deletes it, and no retention drops it, until it is released."""
    found = backup_meant(call, backup)
    call.about(f"backup/{found.id}", reason=body.reason)
    with call.backing.browsing.repository() as repository:
        set_hold(repository, repository.snapshots.get(found.id), body.reason)
        _note(call, found, held=True)
    return answer(backup_document(found) | {"held": True})


@section.delete("/api/backup/{backup}/hold", needs="hold:release", does="hold.release")
def release_backup(call: Caller, backup: Ident) -> Response:
    """Release a backup that was held."""
    found = backup_meant(call, backup)
    with call.backing.browsing.repository() as repository:
        clear_hold(repository, found.id, f"released by {call.principal.name}")
        _note(call, found, held=False)
    return done()


def _note(call: Any, backup: Backup, *, held: bool) -> None:  # noqa: ANN401 - Caller is an annotation
    """What the repository has decided, in the list and in the audit log."""
    with call.backing.catalog.session() as session:
        row = session.get(Backup, backup.id)
        if row is not None:
            row.held = held
        call.record(session)
