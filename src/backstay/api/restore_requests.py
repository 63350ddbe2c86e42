"""What a request to restore means: which backups, where to, and whether the caller may.

Restores write to this machine with the rights of the service, so targets are held tight: whole paths, below the
directories and into the databases that whoever runs the service allows, never into the service's own data; and what
writes over something that lives (a restore in place, into a database, into directories of the system, or one that
replaces or deletes what is at its target) needs a permission of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from backstay.api.call import Call
from backstay.api.database_addresses import unreadable
from backstay.api.known import backup_meant, no_policy, policy_named, sources_meant, sources_seen
from backstay.api.models.restores import AskedRestore, AskedTarget
from backstay.api.restore_databases import require_database
from backstay.catalog.backup_search import BackupFilters, scope_of
from backstay.catalog.models import Backup
from backstay.control.access.scopes import EVERYTHING, policy_scope
from backstay.control.jobs.kinds import RestoreArguments, RestoreTargetArguments
from backstay.control.manager.restoring import RestoreRequest
from backstay.control.manager.targets import DatabaseTarget, DirectoryTarget, RestoreTarget, target_of
from backstay.control.policies.origins import has_password
from backstay.control.policies.policy import Policy
from backstay.control.service.target_places import own_places, place_seen, real_path, require_apart
from backstay.errors import InvalidRequest, NotFound
from backstay.sources.sqlite.database import path_of

# A new file there can be as good as a login: whoever may write there may do what root may.
_SYSTEM: Final = (
    *map(Path, ("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/opt", "/proc", "/run", "/sbin", "/sys")),
    *map(Path, ("/usr", "/var/spool/cron")),
)
_TO_GIVE = ("include", "exclude", "delete", "validate_before", "verify", "parallel", "dry_run", "mode")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A restore as it will be carried out; `scope` is that of its job."""

    backups: Sequence[Backup]
    arguments: RestoreArguments
    policy: str | None
    scope: str


def settled(call: Call, asked: AskedRestore) -> Settled:
    """What is asked for. Raises NotFound, Forbidden, InvalidRequest."""
    backups = _backups(call, asked)
    targets = [] if asked.target is None else [_target(asked.target)]
    arguments: RestoreArguments = {
        "backups": [backup.id for backup in backups],
        "targets": targets,
        "conflict": "newer" if asked.conflict == "if_newer" else asked.conflict,
        **asked.model_dump(include={*_TO_GIVE}),  # type: ignore[typeddict-item]
    }
    return _allowed_there(call, backups, arguments)


def settled_again(call: Call, arguments: RestoreArguments) -> Settled:
    """What was planned, for whoever wants to carry it out now. Raises NotFound, Forbidden, InvalidRequest."""
    return _allowed_there(call, [backup_meant(call, ident) for ident in arguments["backups"]], arguments)


def _allowed_there(call: Call, backups: Sequence[Backup], arguments: RestoreArguments) -> Settled:
    policies = {backup.policy for backup in backups}
    policy = policies.pop() if len(policies) == 1 else None
    of_policy = EVERYTHING if policy is None else policy_scope(policy)
    scope = scope_of(backups[0]) if len(backups) == 1 else of_policy
    found = Settled(backups=backups, arguments=arguments, policy=policy, scope=scope)
    if "places" not in arguments:  # what was planned keeps what was seen then
        arguments["places"] = [place_seen(place) for place in _places(found)]
    require_target(call, found)  # afterwards: what is changed between the two is not what the job will find
    return found


def _places(restore: Settled) -> Iterator[Path]:
    """Where on this machine's disks a restore writes."""
    if restore.arguments.get("mode") == "in_place":
        yield from (Path(path) for backup in restore.backups for path in backup.paths)
    for target in restore.arguments.get("targets", ()):
        if (place := _place_of(target)) is not None:
            yield place


def targets_of(arguments: RestoreArguments) -> list[RestoreTarget]:
    """The targets of a job's arguments. Raises InvalidRequest."""
    return [_as_target(target) for target in arguments.get("targets", ())]


def request_of(arguments: RestoreArguments) -> RestoreRequest:
    """How a job's arguments say that it restores."""
    return RestoreRequest(
        include=arguments.get("include", ()),
        exclude=arguments.get("exclude", ()),
        conflict=arguments.get("conflict", "fail"),
        delete=arguments.get("delete", False),
        validate_before=arguments.get("validate_before", False),
        verify=arguments.get("verify", False),
        parallel=arguments.get("parallel"),
        mode=arguments.get("mode", "beside"),
    )


# -- which backups


def _backups(call: Call, asked: AskedRestore) -> list[Backup]:
    if (asked.backup_id is None) == (asked.policy is None):
        raise InvalidRequest("it is not clear what to restore", cause="name either a `backup_id` or a `policy`")
    if asked.policy is not None:
        name, policy = policy_named(call, asked.policy)
        call.require_somewhere_in(policy_scope(name), seen="backup:read", missing=no_policy(name))
        return [_newest(call, name, source, asked.at) for source in _named(call, name, policy, asked.sources)]
    assert asked.backup_id is not None
    found = backup_meant(call, asked.backup_id)
    sources = _sources_beside(call, found, asked)
    if not sources:
        return [found if asked.at is None else _newest(call, found.policy, found.source, asked.at)]
    return [_beside(call, found, source, asked.at) for source in sources]


def _sources_beside(call: Call, found: Backup, asked: AskedRestore) -> list[str]:
    """The sources that are wanted of the run that made a backup; none when that backup alone is."""
    if not asked.sources or found.policy is None:
        return []
    _, policy = policy_named(call, found.policy)
    return _named(call, found.policy, policy, asked.sources)


def _named(call: Call, name: str, policy: Policy, asked: Sequence[str]) -> list[str]:
    """The snapshots' names of the sources that are wanted, one by one, also when all are that the caller sees."""
    return sources_meant(call, name, policy, asked) or sources_seen(call, name, policy)


def _beside(call: Call, found: Backup, source: str, at: datetime | None) -> Backup:
    """The backup of a source that belongs to another: of the same run, or as old at most."""
    if source == found.source and at is None:
        return found
    if at is None and found.job_id is not None:
        filters = BackupFilters(policy=found.policy, source=source, job_id=found.job_id)
        if same_run := call.backing.index.page(filters, 1, None).items:
            return _allowed(call, same_run[0])
    return _newest(call, found.policy, source, at or found.time)


def _newest(call: Call, policy: str | None, source: str, at: datetime | None) -> Backup:
    """The newest backup of a source, not later than a time. Raises NotFound."""
    until = None if at is None else at + timedelta(microseconds=1)
    filters = BackupFilters(policy=policy, source=source, until=until, scopes=call.principal.scopes("backup:read"))
    found = call.backing.index.page(filters, 1, None).items
    if not found:
        when = "" if at is None else f" that is not later than {at.isoformat()}"
        raise NotFound(f"there is no backup of {source}{when}", hint="`GET /api/backup/list` lists them")
    return _allowed(call, found[0])


def _allowed(call: Call, backup: Backup) -> Backup:
    missing = NotFound(f"there is no backup {backup.id}", hint="`GET /api/backup/list` lists them")
    call.require(scope_of(backup), seen="backup:read", missing=missing)
    return backup


# -- where to


def _target(asked: AskedTarget) -> RestoreTargetArguments:
    if asked.path is not None:
        if asked.schemas or asked.tables:
            raise InvalidRequest("schemas and tables are parts of a database", cause="the target is a directory")
        return {"path": os.path.normpath(asked.path), "source": asked.source}
    assert asked.database is not None
    if asked.source is not None:
        raise InvalidRequest("`source` is a part of files", cause="the target is a database")
    try:
        urlsplit(asked.database)
    except ValueError as error:
        raise unreadable() from error
    if has_password(asked.database):
        raise InvalidRequest(
            "an address with a password is not taken",
            cause="jobs are kept and shown to others",
            hint="let the service have it, as PGPASSWORD or in ~/.pgpass, and leave it out here",
        )
    target_of(asked.database)
    return {
        "database": asked.database,
        "schemas": list(asked.schemas),
        "tables": list(asked.tables),
        "owners": asked.owners,
    }


def _as_target(target: RestoreTargetArguments) -> RestoreTarget:
    if "path" in target:
        return DirectoryTarget(destination=target["path"], source=target.get("source"))
    return DatabaseTarget(
        connection=target["database"],
        schemas=target.get("schemas", ()),
        tables=target.get("tables", ()),
        owners=target.get("owners", True),
    )


def require_target(call: Call, restore: Settled) -> None:
    """See that the caller may restore there. Raises Forbidden, InvalidRequest."""
    targets = restore.arguments.get("targets", [])
    in_place = restore.arguments.get("mode") == "in_place"
    if in_place and targets:
        raise InvalidRequest("a restore in place has no target", cause="it goes to where the backup came from")
    if not in_place and not targets:
        raise InvalidRequest(
            "it is not clear where to restore to", cause="there is no `target`", hint='`"target": {"path": "/…"}`'
        )
    if in_place or any(map(_is_living, targets)) or _replaces(restore.arguments):
        for backup in restore.backups:
            call.also("restore:in_place", scope_of(backup))
    for target in targets:
        if (place := _place_of(target)) is not None:
            _require_place(call, place)
        else:
            require_database(call, target["database"])
    if in_place and call.backing.options.restore_roots:
        for backup in restore.backups:
            for path in backup.paths:
                _require_place(call, Path(path))


def _replaces(arguments: RestoreArguments) -> bool:
    """Whether what is at the target may be written over or deleted; it may be where the backup came from."""
    return arguments.get("conflict") in ("overwrite", "newer") or arguments.get("delete", False)


def _is_living(target: RestoreTargetArguments) -> bool:
    """Whether a target is a database, or belongs to the system."""
    if "database" in target:
        return True
    place = real_path(Path(target["path"]))
    return any(place == one or one in place.parents for one in map(real_path, _SYSTEM))


def _place_of(target: RestoreTargetArguments) -> Path | None:
    """Where on this machine's disks a target is."""
    if "path" in target:
        return Path(target["path"])
    if target["database"].startswith("sqlite:"):
        return Path(os.fsdecode(path_of(target["database"])))
    return None


def _require_place(call: Call, place: Path) -> None:
    """See that a place may be written to. Links that are there already are followed: a name is no way around."""
    real, roots = real_path(place), call.backing.options.restore_roots
    require_apart(place, list(own_places(call.backing.service.data_dir, call.backing.opener())))
    if roots and not any(root == real or root in real.parents for root in map(real_path, roots)):
        raise InvalidRequest(
            "nothing is restored there",
            cause=f"{place} does not lie below a directory that this service allows",
            hint="choose a place below " + ", ".join(map(str, roots)),
        )
