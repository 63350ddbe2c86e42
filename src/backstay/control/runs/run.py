"""Run one policy, once: hooks, a backup of each source, retention, verification.

Order: the programs that come before; the backups, of which one that fails does not keep the others from being made;
then retention, of the sources that were just backed up and of nothing else; then verification; then the programs that
come after. A crash leaves whole snapshots of the sources that were done, and more old ones than the rules keep: the
next run goes on from there. Programs that should come at the end do not run then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeAlias

from backstay.control.policies.effective import Effective, effective
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.policies.origins import AnyOrigin
from backstay.control.policies.policy import BackupManagerSettings, Hooks, Policy
from backstay.control.runs.capturing import source_of
from backstay.control.runs.hooks import HookOutcome, When, run_hook
from backstay.control.runs.verifying import verify_options
from backstay.core.clock import Clock
from backstay.core.events import EventSink
from backstay.core.times import Span
from backstay.errors import BackstayError, BackupFailed, CorruptedBackup, Interrupted, InvalidRequest, NotFound
from backstay.operations.backup.request import BackupKind, BackupOptions, BackupResult
from backstay.operations.backup.run import run_backup
from backstay.operations.retention.prune import PrunePlan, execute_prune, plan_prune
from backstay.operations.retention.rules import RetentionRules
from backstay.operations.verify.run import VerifyReport, run_verify
from backstay.repository.repository import Repository

UNREADABLE_ITEMS: Final = 3  # exit status: the snapshot is good, but lacks some items

Watching: TypeAlias = Callable[[], AbstractContextManager[tuple[EventSink, Callable[[], None]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What a run takes from outside.

    `prepare` makes the repository if it never was, and `open` gives it. `watching` gives a sink of events, and what
    raises Interrupted when somebody asked for the end. `scratch` is where restores are tried if the policy names no
    place.
    """

    prepare: Callable[[], None]
    open: Callable[[], AbstractContextManager[Repository]]
    watching: Watching
    clock: Clock
    environ: Mapping[str, str]
    warn: Callable[[str], None]
    scratch: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How to run a policy; a dry run makes no snapshot, deletes nothing and runs no hook.

    `sources` are names of sources or of their snapshots, none means all. `tags` come to those of the policy, and a
    `description` stands in place of its own. What is younger than `retention_days` stays, whatever else the policy
    drops; a policy without retention drops what is older. `job` is told to hooks.
    """

    kind: BackupKind = "incremental"
    host: str
    dry_run: bool = False
    sources: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    description: str | None = None
    retention_days: int | None = None
    job: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceOutcome:
    """What became of one source: a result, or an error."""

    name: str
    type: str
    result: BackupResult | None = None
    error: BackstayError | None = None


@dataclass(slots=True, kw_only=True)
class PolicyOutcome:
    """What became of a run; it grows while the run goes on. `error` is what kept the whole of it from its end."""

    policy: str
    dry_run: bool
    sources: list[SourceOutcome] = field(default_factory=list)
    retention: PrunePlan | None = None
    dropped: tuple[str, ...] = ()
    verification: VerifyReport | None = None
    hooks: list[HookOutcome] = field(default_factory=list)
    error: BackstayError | None = None

    @property
    def errors(self) -> list[BackstayError]:
        """All that failed, in order."""
        found = [self.error, *(source.error for source in self.sources)]
        return [error for error in found if error is not None] + [
            hook.error for hook in self.hooks if hook.error is not None and hook.fails_policy
        ]

    @property
    def snapshots(self) -> list[str]:
        """The snapshots that were made."""
        results = (source.result for source in self.sources)
        return [result.snapshot for result in results if result is not None and result.snapshot is not None]

    @property
    def status(self) -> int:
        """The exit status: that of the first failure, else 13 for findings, else 3 for items left out, else 0."""
        if errors := self.errors:
            return errors[0].exit_status
        if self.verification is not None and not self.verification.ok:
            return CorruptedBackup.exit_status
        lacking = any(source.result is not None and source.result.errors for source in self.sources)
        return UNREADABLE_ITEMS if lacking else 0

    @property
    def went_well(self) -> bool:
        return self.status in (0, UNREADABLE_ITEMS)


def run_policy(loaded: LoadedPolicies, name: str, options: RunOptions, world: World) -> PolicyOutcome:
    """Run a policy of a file.

    Raises NotFound for a policy or source that there is not, and Interrupted; other failures are in the outcome.
    """
    return run_this_policy(loaded.policy(name), name, loaded.content.backup_manager, options, world)


def run_this_policy(
    policy: Policy, name: str, settings: BackupManagerSettings, options: RunOptions, world: World
) -> PolicyOutcome:
    """Run a policy that need not stand in a file; as `run_policy`. Raises InvalidRequest for one of an agent."""
    if policy.agent is not None:
        raise InvalidRequest(
            f"the policy {name} is not run here",
            cause=f"what it backs up is on the host of the agent {policy.agent}",
            hint="let its schedule or `POST /api/backup/create` ask for it: the agent fetches the job",
        )
    run = _Run(
        policy=policy,
        chosen=chosen_origins(policy, name, options.sources),
        holds=effective(policy, settings),
        options=options,
        world=world,
        outcome=PolicyOutcome(policy=name, dry_run=options.dry_run),
    )
    run.whole()
    return run.outcome


@dataclass(slots=True, kw_only=True)
class _Run:
    """One run; its methods are the stages in order."""

    policy: Policy
    chosen: Sequence[AnyOrigin]
    holds: Effective
    options: RunOptions
    world: World
    outcome: PolicyOutcome
    broken: BaseException | None = None  # an end that is not told in the outcome

    def whole(self) -> None:
        try:
            self._work()
        except Interrupted as error:
            self.broken = error
            raise
        except BackstayError as error:
            self.outcome.error = error
        except BaseException as error:
            self.broken = error
            raise
        finally:
            self._end()

    def _work(self) -> None:
        world = self.world
        with world.watching() as (_, stop_if_asked):
            self._hooks("before", stop_if_asked)
        if self.outcome.errors:
            return
        if not self.options.dry_run:
            world.prepare()  # not before the hooks: one of them may mount its disk
        with world.watching() as (events, stop_if_asked), world.open() as repository:
            for origin in self.chosen:
                stop_if_asked()
                self.outcome.sources.append(self._source(repository, origin, events, stop_if_asked))
            # A wish that came too late for the last snapshot ends what follows, if anything does.
            self._retention(repository, events, stop_if_asked)
            self._verification(repository, events, stop_if_asked)

    # -- backups

    def _source(
        self, repository: Repository, origin: AnyOrigin, events: EventSink, stop_if_asked: Callable[[], None]
    ) -> SourceOutcome:
        name = origin.snapshot_name(self.outcome.policy)
        try:
            result = self._backup(repository, origin, name, events, stop_if_asked)
        except Interrupted:
            raise
        except BackstayError as error:
            return SourceOutcome(name=name, type=origin.type, error=error)
        except OSError as error:  # of a place that cannot be looked at
            title = f"{name} cannot be backed up"
            failure = BackupFailed(title, cause=f"{error.filename or ''}: {error.strerror or error}".lstrip(": "))
            return SourceOutcome(name=name, type=origin.type, error=failure)
        return SourceOutcome(name=name, type=origin.type, result=result)

    def _backup(
        self,
        repository: Repository,
        origin: AnyOrigin,
        name: str,
        events: EventSink,
        stop_if_asked: Callable[[], None],
    ) -> BackupResult:
        world, options = self.world, self.options
        source = source_of(
            origin, repository, clock=world.clock, environ=world.environ, warn=world.warn, tick=stop_if_asked
        )
        asked = BackupOptions(
            kind=options.kind,
            host=options.host,
            name=name,
            tags=tuple(dict.fromkeys((*self.policy.tags, *options.tags))),
            description=self.policy.description if options.description is None else options.description,
            dry_run=options.dry_run,
        )
        return run_backup(repository, source, asked, events=events)

    # -- afterwards

    def _retention(self, repository: Repository, events: EventSink, stop_if_asked: Callable[[], None]) -> None:
        """Drop what no rule keeps, of the sources that were just backed up: a failure makes nothing older go."""
        rules = self._rules()
        if rules is None:
            return
        stop_if_asked()
        done = {source.name for source in self.outcome.sources if source.result is not None}
        live = repository.snapshots.live()
        ours = {one.id for one in live if one.name in done and one.host == self.options.host}
        plan = plan_prune(
            repository,
            rules,
            now=self.world.clock.now(),
            zone=self.holds.zone,
            only=ours,
            events=events,
        )
        self.outcome.retention = plan
        if not self.options.dry_run:
            self.outcome.dropped = execute_prune(repository, plan, events=events).dropped

    def _rules(self) -> RetentionRules | None:
        rules = None if self.holds.retention is None else self.holds.retention.rules()
        if self.options.retention_days is None:
            return rules
        days = Span(days=self.options.retention_days)
        if rules is None:
            return RetentionRules(keep_within=days)
        now = self.world.clock.now()
        within = max(rules.keep_within or days, days, key=lambda span: span.length_before(now))
        return replace(rules, keep_within=within)

    def _verification(self, repository: Repository, events: EventSink, stop_if_asked: Callable[[], None]) -> None:
        wanted = self.holds.verification
        made = [snapshot for snapshot in self.outcome.snapshots if snapshot not in self.outcome.dropped]
        if wanted is None or not (wanted.enabled and wanted.each_run and made):
            return
        stop_if_asked()
        world = self.world
        options = verify_options(wanted, self.outcome.policy, self.policy, environ=world.environ, scratch=world.scratch)
        self.outcome.verification = run_verify(repository, made, options, events=events)

    # -- hooks

    def _end(self) -> None:
        """Run the programs that come at the end. A signal that came before does not stop them; a second one does."""
        if self.broken is None and self.outcome.went_well:
            self._hooks("after", _go_on)
        if self.broken is not None or not self.outcome.went_well:
            self._hooks("failure", _go_on)
        self._hooks("always", _go_on)

    def _hooks(self, when: When, tick: Callable[[], None]) -> None:
        """Run the hooks of a moment, up to the first that fails the policy."""
        if self.options.dry_run:
            return
        hooks = self.policy.hooks or Hooks()
        for hook in getattr(hooks, when):
            facts = dict(self._facts())
            world = self.world
            outcome = run_hook(when, hook, facts, environ=world.environ, clock=world.clock, tick=tick)
            self.outcome.hooks.append(outcome)
            if outcome.fails_policy:
                return
            if outcome.error is not None:
                world.warn(str(outcome.error))

    def _facts(self) -> Iterator[tuple[str, str]]:
        """What a hook is told."""
        yield "POLICY", self.outcome.policy
        yield "KIND", self.options.kind
        yield "JOB", self.options.job
        yield "SNAPSHOTS", " ".join(self.outcome.snapshots)
        failed: list[BaseException] = [*self.outcome.errors, *([self.broken] if self.broken is not None else [])]
        status = getattr(self.broken, "exit_status", 1) if self.broken is not None else self.outcome.status
        yield "STATUS", str(status)
        yield "ERROR", "; ".join(str(error) for error in failed).replace("\0", "")


def chosen_origins(policy: Policy, name: str, wanted: Sequence[str]) -> tuple[AnyOrigin, ...]:
    """The sources of a policy that are meant, by their names or by those of their snapshots; all by none.

    Raises NotFound.
    """
    by_name = {origin.snapshot_name(name): origin for origin in policy.sources}
    by_name |= {origin.name: origin for origin in policy.sources if origin.name is not None}
    for one in wanted:
        if one not in by_name:
            known = ", ".join(origin.snapshot_name(name) for origin in policy.sources)
            raise NotFound(
                f"the policy {name!r} has no source {one!r}",
                cause=f"it has {known}",
                hint="`backstay policy show` shows what the file says",
            )
    meant = [by_name[one] for one in wanted]
    return tuple(origin for origin in policy.sources if not wanted or origin in meant)


def _go_on() -> None:
    """Nothing stops the hooks at the end."""
