"""Jobs that verify: what they found is kept as evidence, and said in the list of backups."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime

from backstay.catalog.checkpoints import audit_signer
from backstay.catalog.models.base import Document
from backstay.catalog.models.jobs import Job
from backstay.control.evidence.kept import store
from backstay.control.evidence.levels import options_of
from backstay.control.evidence.report import Occasion, report_of
from backstay.control.evidence.seal import seal
from backstay.control.jobs.execution import Execution
from backstay.control.jobs.failures import JobFailed
from backstay.control.manager.checking import outcomes
from backstay.control.manager.documents import checks_document
from backstay.control.policies.effective import effective
from backstay.control.runs.verifying import verify_options
from backstay.control.service.context import ServiceContext, backups_of, policy_of
from backstay.core.ids import new_ulid
from backstay.errors import BackstayError, CorruptedBackup, NotFound
from backstay.operations.verify.bad_objects import bad_objects
from backstay.operations.verify.run import ALL_CHECKS, VerifyOptions, VerifyReport, run_verify
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest


def verification(context: ServiceContext, job: Job, execution: Execution) -> Document:
    """Verify backups, or the newest of each source of a policy; with a restore test they are really restored.

    Order: the repository is read first, then evidence and marks are written in one transaction. A crash between leaves
    neither, and the job is run again.
    """
    options = _options(context, job)
    manager = context.manager(execution)
    with manager.opener.open() as repository, repository.passing_unreadable():
        ids = backups_of(job) or _newest(context, repository, policy_of(job))
        began = context.clock.now()
        if options.rehearse is not None:
            options.rehearse.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = run_verify(repository, list(ids), options, events=execution.events)
        execution.checkpoint()
        kept = _keep(context, repository, job, options, found, ids, began)
    result = checks_document(outcomes(found)) | {"backups": list(ids), "evidence": kept}
    result |= asdict(bad_objects(found.findings))
    result |= {"rehearsals": [asdict(one) for one in found.rehearsals]} if found.rehearsals else {}
    if found.failure is not None:
        raise JobFailed(found.failure, result)
    return result


def _options(context: ServiceContext, job: Job) -> VerifyOptions:
    """What to look at: a level in one word, else what is asked for, else what the policy says."""
    asked, said = job.arguments, _of_policy(context, job)
    place = said.rehearse or context.scratch
    if level := asked.get("level"):
        options = options_of(level, scratch=place, min_bytes=asked.get("min_bytes"))
        return replace(options, trial=said.trial)
    return replace(
        said,
        checks=tuple(asked.get("checks") or said.checks),
        read_data=asked.get("read_data", said.read_data),
        min_bytes=asked.get("min_bytes") or said.min_bytes,
        rehearse=place if asked.get("restore_test") or job.kind == "rehearsal" else said.rehearse,
    )


def _of_policy(context: ServiceContext, job: Job) -> VerifyOptions:
    """What the job's policy says of verification; all checks if it says nothing."""
    loaded, name = context.policies.loaded, job.policy
    if loaded is not None and name in loaded.content.policies:
        policy = loaded.policy(name)
        wanted = effective(policy, loaded.content.backup_manager).verification
        if wanted is not None:
            return verify_options(wanted, name, policy, environ=context.environ, scratch=context.scratch)
    return VerifyOptions(checks=ALL_CHECKS, reserve=True)


def _newest(context: ServiceContext, repository: Repository, policy: str) -> tuple[str, ...]:
    """The newest backup of each source of a policy that can be read; others are among the findings.

    Raises NotFound if there is none, CorruptedBackup if those that cannot be read may be one.
    """
    origins = context.policies.required().policy(policy).sources
    names = {origin.snapshot_name(policy) for origin in origins}
    newest: dict[str, tuple[datetime, str]] = {}
    damaged: dict[str, BackstayError] = {}
    for manifest in repository.snapshots.live(on_damage=damaged.__setitem__):
        if manifest.name in names:
            newest[manifest.name] = max(newest.get(manifest.name, (manifest.time, "")), (manifest.time, manifest.id))
    if not newest:
        if damaged:
            raise next(iter(damaged.values()))
        raise NotFound(f"there is no backup of {policy} yet", hint="run the policy first")
    return tuple(ulid for _, ulid in sorted(newest.values()))


def _readable(repository: Repository, ids: Sequence[str]) -> Iterator[Manifest]:
    """The snapshots that can be read at all; that others cannot is among the findings."""
    for ulid in ids:
        with suppress(CorruptedBackup):
            yield repository.snapshots.get(ulid)


def _keep(
    context: ServiceContext,
    repository: Repository,
    job: Job,
    options: VerifyOptions,
    found: VerifyReport,
    ids: tuple[str, ...],
    began: datetime,
) -> list[str]:
    """Evidence, signed by the service; the ids of its rows."""
    now = context.clock.now()
    occasion = Occasion(
        id=new_ulid(context.clock.now_ns(), context.random),
        host=socket.gethostname(),
        started=began,
        finished=now,
        policy=job.policy,
        job=job.id,
        actor=job.actor,
    )
    manifests = list(_readable(repository, ids))
    evidence = seal(
        report_of(repository, manifests, options, found, occasion),
        audit_signer(context.data_dir / "audit.key", context.random),
    )
    context.index.made(repository, [one.id for one in manifests])
    with context.catalog.session() as session:
        return store(session, evidence, now=now, random=context.random, job_id=job.id)
