"""Look at the backups that there are, and decide which of them stay."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from backstay.control.manager import retaining
from backstay.control.manager.backups import Backup, the_only
from backstay.control.manager.ground import Ground
from backstay.control.policies.effective import effective
from backstay.core.events import EventSink, ignore
from backstay.core.times import require_zone
from backstay.errors import InvalidRequest
from backstay.operations.retention.holds import clear_hold, set_hold
from backstay.repository.collection.deleting import refusal
from backstay.repository.collection.plan import CollectionPlan, CollectionResult
from backstay.repository.snapshots.selectors import stored_path
from backstay.repository.snapshots.store import Manifest


class Custody(Ground):
    """The part that lists, deletes and keeps backups."""

    def list(
        self,
        *,
        name: str | None = None,
        policy: str | None = None,
        kind: str | None = None,
        host: str | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> builtins.list[Backup]:
        """All backups of the repository that are as asked for, newest first. Raises NaiveTimestamp."""
        require_zone(since)
        require_zone(until)
        with self._reading() as repository:
            found = self._known(repository)
            held = repository.snapshots.holds.held()
        if policy is not None:
            names = self._setup.names.get(policy, frozenset({policy}))
            found = [one for one in found if one.name in names]
        kept = (
            one
            for one in found
            if name in (None, one.name)
            and kind in (None, one.kind)
            and host in (None, one.host)
            and (tag is None or tag in one.tags)
            and (since is None or one.time >= since)
            and (until is None or one.time < until)
        )
        ordered = sorted(kept, key=lambda one: (one.time_ns, one.id), reverse=True)
        return [Backup.of(one, held=one.id in held) for one in ordered]

    def get(self, backup: str, *, at: datetime | None = None, path: str | Path | None = None) -> Backup:
        """The one backup of an id, its beginning, a name, `latest`, `latest:NAME` or `NAME-2025-06-24`.

        With a `path` it is the newest that holds it. Raises NotFound, and InvalidRequest where a name means backups of
        several sources: `find` gives them all.
        """
        with self._reading() as repository:
            place = None if path is None else stored_path(path)
            manifest = the_only(self._meant(repository, backup, at=at, path=place), backup)
            return Backup.of(manifest, held=manifest.id in repository.snapshots.holds.held([manifest.id]))

    def find(self, backup: str, *, at: datetime | None = None) -> builtins.list[Backup]:
        """All backups that a text means: of the name of a policy the newest of each of its sources. Raises NotFound."""
        with self._reading() as repository:
            held = repository.snapshots.holds.held()
            return [Backup.of(one, held=one.id in held) for one in self._meant(repository, backup, at=at)]

    # -- delete and keep

    def delete(
        self, backup: str, *, reason: str = "deleted by a program", job_id: str | None = None
    ) -> tuple[str, ...]:
        """Delete what a text means, and free nothing yet; the ids. Several are deleted if they are of one policy, or if
        one run made them.

        Raises NotFound, InvalidRequest, and HoldViolation where any of it is held: then nothing is deleted.
        """
        with self.opener.open(index=False) as repository:
            ids = self._to_delete(self._meant(repository, backup), backup)
            with self.records.run("delete", {"backups": [*ids], "reason": reason}, job_id=job_id) as record:
                retaining.drop(repository, ids, reason)
                record.result, record.backup_id = {"deleted": [*ids]}, ids[0]
            self.records.removed(repository, ids)
        return ids

    def _to_delete(self, meant: Sequence[Manifest], text: str) -> tuple[str, ...]:
        """The ids. Raises InvalidRequest for several that have nothing but the beginning of a name in common."""
        ids = tuple(one.id for one in meant)
        policies = {self._setup.policy_of(one.name) for one in meant}
        runs = self.records.runs_of(ids) if len(ids) > 1 and (len(policies) > 1 or None in policies) else {""}
        if len(runs) > 1 or None in runs:
            raise InvalidRequest(
                f"{text!r} means {len(ids)} backups that may have nothing to do with each other",
                cause=", ".join(f"{one.id} of {one.name}" for one in meant),
                hint="delete each by its id",
            )
        return ids

    def hold(self, backup: str, *, reason: str, events: EventSink = ignore) -> Backup:
        """Keep a backup from being deleted by anybody. Raises NotFound."""
        with self.opener.open() as repository:
            manifest = the_only(self._meant(repository, backup), backup)
            set_hold(repository, manifest, reason, events=events)
            return Backup.of(manifest, held=True)

    def release(self, backup: str, *, reason: str, events: EventSink = ignore) -> Backup:
        """Let a backup that is held be deleted again. Raises NotFound."""
        with self.opener.open() as repository:
            manifest = the_only(self._meant(repository, backup), backup)
            clear_hold(repository, manifest.id, reason, events=events)
            return Backup.of(manifest)

    def prune(
        self, policy: str | None = None, *, dry_run: bool = False, events: EventSink = ignore, job_id: str | None = None
    ) -> retaining.Pruned:
        """Delete what the retention of a policy does not keep, of its sources, by the calendar of its time zone.

        Raises NotFound, InvalidRequest.
        """
        name = policy or self._only_policy()
        holds = effective(self._policy(name), self._setup.settings)
        rules = retaining.rules_of(holds, name, self._setup.retention_days)
        arguments = {"policy": name, "dry_run": dry_run}
        with self.records.run("prune", arguments, job_id=job_id, policy=name, scope=f"/policy/{name}") as record:
            with self.opener.open() as repository:
                names = self._setup.names[name]
                pruned = retaining.prune(
                    repository,
                    rules,
                    names,
                    now=self._setup.clock.now(),
                    zone=holds.zone,
                    dry_run=dry_run,
                    events=events,
                )
                if not dry_run:
                    self.records.removed(repository, pruned.dropped)
            record.result = asdict(pruned)
            return pruned

    def gc(
        self,
        *,
        dry_run: bool = False,
        allow_empty: bool = False,
        events: EventSink = ignore,
        job_id: str | None = None,
    ) -> CollectionPlan | CollectionResult:
        """Free what no backup needs; where there are no backups at all, only if that is `allow_empty`.

        Raises CollectionBusy, HoldViolation; StorageRefused, after all else, when the store does not delete something.
        """
        with self.records.run("gc", {"dry_run": dry_run}, job_id=job_id) as record, self.opener.open() as repository:
            done = retaining.collect(repository, dry_run=dry_run, allow_empty=allow_empty, events=events)
            record.result = retaining.collection_document(done)
            if isinstance(done, CollectionResult) and done.refused:
                raise refusal(done.refused)
            return done
