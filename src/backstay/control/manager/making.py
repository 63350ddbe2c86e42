"""Make backups: of policies, of requests that stand in no file, and of whatever is given."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Final

from backstay.control.manager.backups import Backup
from backstay.control.manager.documents import run_document
from backstay.control.manager.ground import Checkpoint, Ground, go_on
from backstay.control.manager.results import BackupRun
from backstay.control.manager.setup import listed_sources
from backstay.control.manager.sources import BackupRequest, BackupSource
from backstay.control.opening.cache import usable_cache
from backstay.control.runs.run import PolicyOutcome, RunOptions, World, run_this_policy
from backstay.core.arguments import Bounds
from backstay.core.events import EventSink, ignore
from backstay.core.names import printable, require_utf8
from backstay.core.quantities import plural
from backstay.errors import BackupFailed, CorruptedBackup, InvalidRequest
from backstay.operations.backup.request import BackupKind
from backstay.repository.repository import Repository
from backstay.sources.scratch import scratch_above

_TOLD: Final = 3  # items of one backup that a warning names


class Making(Ground):
    """The part that makes backups."""

    def execute(
        self,
        policy: str | BackupRequest,
        *,
        kind: BackupKind | None = None,
        tags: Sequence[str] = (),
        description: str | None = None,
        sources: Sequence[str] = (),
        retention_days: Annotated[int, Bounds(1)] | None = None,
        dry_run: bool = False,
        check: bool = True,
        events: EventSink = ignore,
        checkpoint: Checkpoint = go_on,
        job_id: str | None = None,
    ) -> BackupRun:
        """Run a policy of the file, or a request: hooks, a backup of each source, retention, verification.

        Items that could not be read are told to `warn`, and fail nothing. Raises NotFound, InvalidRequest and
        Interrupted, and with `check` the first failure of the run; without it, that is told by the run.
        """
        name = policy.name if isinstance(policy, BackupRequest) else policy
        wanted = policy.policy() if isinstance(policy, BackupRequest) else self._policy(policy)
        _require_words(wanted.description if description is None else description, tags)
        kind = kind or (policy.kind if isinstance(policy, BackupRequest) else "incremental")
        keep = self._setup.retention_days if retention_days is None else retention_days
        arguments = {"policy": name, "kind": kind, "sources": list(sources), "tags": list(tags), "dry_run": dry_run}
        arguments |= {"description": description, "retention_days": keep}
        with self.records.run("backup", arguments, job_id=job_id, policy=name, scope=f"/policy/{name}") as record:
            options = RunOptions(
                kind=kind,
                host=socket.gethostname(),
                dry_run=dry_run,
                sources=tuple(sources),
                tags=tuple(tags),
                description=description,
                retention_days=keep,
                job=record.id,
            )
            begun, started = self._setup.clock.monotonic(), self._setup.clock.now()
            notices: list[str] = []
            world = self._world(events, checkpoint, notices)
            outcome = run_this_policy(wanted, name, self._setup.settings, options, world)
            self._warn_of_what_is_lacking(outcome)
            run = BackupRun(
                id=record.id,
                policy=name,
                dry_run=dry_run,
                backups=self._made(outcome, record.id, name),
                outcome=outcome,
                started_at=started,
                duration_s=self._setup.clock.monotonic() - begun,
                notices=tuple(notices),
            )
            record.result = run_document(run)
            record.backup_id = run.backups[0].id if run.backups else None
            if check and not run.ok:
                raise run.error or CorruptedBackup(
                    f"the new backup of {name} is not good", cause="verification found mistakes"
                )
            return run

    def create_backup(
        self,
        source: BackupSource | str | Path | Sequence[BackupSource | str | Path] | None = None,
        *,
        name: str = "backup",
        kind: BackupKind = "incremental",
        description: str = "",
        tags: Sequence[str] = (),
        events: EventSink = ignore,
        checkpoint: Checkpoint = go_on,
        job_id: str | None = None,
    ) -> Backup:
        """Back up paths, a database or several of such; without a source what was configured, or the only policy.

        Of several sources the backup of the first is given. Items that could not be read are told to `warn`, and fail
        nothing. Raises BackupFailed and what else a run raises.
        """
        sources = self._setup.sources if source is None else listed_sources(source)
        asked: str | BackupRequest
        if sources:
            asked = BackupRequest(name=name, sources=sources, description=description, tags=tags, kind=kind)
            run = self.execute(asked, events=events, checkpoint=checkpoint, job_id=job_id)
        else:
            asked = self._only_policy()
            run = self.execute(
                asked,
                kind=kind,
                description=description or None,
                tags=tags,
                events=events,
                checkpoint=checkpoint,
                job_id=job_id,
            )
        if not run.backups:
            raise BackupFailed(f"the run of {run.policy} made no backup", cause="it was stopped before the first one")
        return run.backups[0]

    def _world(self, events: EventSink, checkpoint: Checkpoint, notices: list[str]) -> World:
        setup = self._setup

        def notice(text: str) -> None:
            notices.append(text)
            (setup.warn if setup.notice is None else setup.notice)(text)

        opener = self._counted(replace(setup, notice=notice))

        @contextmanager
        def watching() -> Iterator[tuple[EventSink, Checkpoint]]:
            yield events, checkpoint

        def open_it() -> AbstractContextManager[Repository]:
            return opener.open(grows=True)

        return World(
            prepare=opener.prepare,
            open=open_it,
            watching=watching,
            clock=setup.clock,
            environ=setup.environ,
            warn=setup.warn,
            scratch=scratch_above(usable_cache(setup.environ, setup.warn)),
        )

    def _warn_of_what_is_lacking(self, outcome: PolicyOutcome) -> None:
        for source in outcome.sources:
            problems = () if source.result is None else source.result.errors
            if not problems:
                continue
            told = [f"{printable(one.path)}: {one.message}" for one in problems[:_TOLD]]
            more = [f"and {plural(len(problems) - _TOLD, 'more item')}"] if len(problems) > _TOLD else []
            lacking = f"the backup of {source.name} lacks {plural(len(problems), 'item')}, or parts of them"
            self._setup.warn(f"{lacking}: {', '.join(told + more)}")

    def _made(self, outcome: PolicyOutcome, run: str, policy: str) -> tuple[Backup, ...]:
        """The backups of a run, in the catalog too; those that retention dropped at once are none.

        A crash before the catalog knows them loses nothing: its next refresh finds them in the repository.
        """
        ids = [ulid for ulid in outcome.snapshots if ulid not in outcome.dropped]
        if not ids and not outcome.dropped:
            return ()
        with self._reading() as repository:
            made = tuple(Backup.of(repository.snapshots.get(ulid)) for ulid in ids)
            self.records.made(repository, ids, run=run, policy=policy)
            self.records.removed(repository, outcome.dropped)
        return made


def _require_words(description: str, tags: Sequence[str]) -> None:
    """Before anything is read. Raises InvalidRequest for words that no snapshot keeps."""
    require_utf8("description", description)
    for tag in tags:
        if not require_utf8("tag", tag).strip():
            raise InvalidRequest("the tag is empty", cause="no backup could be found by it", hint="leave it out")
