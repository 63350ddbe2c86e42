"""`run`: one policy, once."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from backstay.cli import default_repository
from backstay.cli.backup import backup_document, show_backup
from backstay.cli.context import Context, context_of
from backstay.cli.options import argument, flag, option
from backstay.cli.policy import warn_of
from backstay.cli.problems import lines, problem
from backstay.cli.render import err
from backstay.core.quantities import plural

if TYPE_CHECKING:
    from backstay.control.opening.location import Location
    from backstay.control.policies.loading import LoadedPolicies
    from backstay.control.runs.hooks import HookOutcome
    from backstay.control.runs.run import PolicyOutcome, SourceOutcome

_SHOWN_FINDINGS = 50


def run_policy(
    ctx: typer.Context,
    policy: Annotated[str, argument("POLICY", "The policy's name in the policy file.")],
    kind: Annotated[
        Literal["full", "incremental", "differential"],
        option("KIND", "As of `backup`.", show_default=True),
    ] = "incremental",
    dry_run: Annotated[
        bool, flag("Only tell what would be read and deleted; runs no hooks.", "--dry-run", "-n")
    ] = False,
) -> int:
    """Run a policy: its hooks, a backup of each source, retention, verification."""
    from backstay.control.policies.pending import pending
    from backstay.control.runs.run import RunOptions, World
    from backstay.control.runs.run import run_policy as work
    from backstay.sources.scratch import scratch_above

    context = context_of(ctx)
    loaded = context.policies()
    loaded.policy(policy)  # before anything is said or created
    location = _location(context, loaded)
    warn_of(context, [remark for remark in pending(loaded) if remark.key.startswith("backup_manager.storage")])
    world = World(
        prepare=lambda: default_repository.ensure_default(context, location),
        open=lambda: context.open(grows=True),
        watching=context.interruptible,
        clock=context.clock,
        environ=context.environ,
        warn=context.warn,
        scratch=scratch_above(context.cache()),
    )
    options = RunOptions(kind=kind, host=socket.gethostname(), dry_run=dry_run)
    outcome = work(loaded, policy, options, world)
    context.interrupts.too_late()
    if outcome.error is not None and not outcome.sources:
        raise outcome.error
    context.result(_document(outcome), lambda: _show(context, outcome))
    return outcome.status


def _location(context: Context, loaded: LoadedPolicies) -> Location:
    """The repository, and how it is written to; it is told where that is not the one of the policy file."""
    from backstay.control.policies.repository_settings import repository_settings

    location, settings = context.location(), repository_settings(loaded, context.environ)
    context.compressor = settings.compressor
    if settings.address not in (None, location.address):
        told = f"the repository is {location.address}, as -r or BACKSTAY_REPO says"
        context.warn(f"{told}, and not that of {loaded.file}")
    return location


def _document(outcome: PolicyOutcome) -> dict[str, object]:
    plan, report = outcome.retention, outcome.verification
    return {
        "policy": outcome.policy,
        "dry_run": outcome.dry_run,
        "status": outcome.status,
        "backups": [_source_document(source) for source in outcome.sources],
        "retention": None
        if plan is None
        else {
            "keep": [decision.candidate.id for decision in plan.kept],
            "drop": [decision.candidate.id for decision in plan.dropped],
        },
        "verification": None
        if report is None
        else {"ok": report.ok, "results": report.results, "findings": report.findings},
        "hooks": [_hook_document(hook) for hook in outcome.hooks],
        "error": None if outcome.error is None else problem(outcome.error),
    }


def _source_document(source: SourceOutcome) -> dict[str, object]:
    document: dict[str, object] = {"name": source.name, "type": source.type}
    if source.result is not None:
        return document | {"error": None} | backup_document(source.result)
    assert source.error is not None
    return document | {"error": problem(source.error)}


def _hook_document(hook: HookOutcome) -> dict[str, object]:
    return {
        "when": hook.when,
        "program": hook.command[0],  # what follows it may be secret
        "error": None if hook.error is None else problem(hook.error),
    }


def _show(context: Context, outcome: PolicyOutcome) -> None:
    for source in outcome.sources:
        context.say(f"{source.name}:")
        if source.result is not None:
            show_backup(context, source.result)
        else:
            context.say("not backed up")
    if outcome.retention is not None:
        count = len(outcome.retention.dropped)
        verb = "would be deleted" if outcome.dry_run else "deleted"
        context.say(f"retention: {plural(len(outcome.retention.kept), 'snapshot')} kept, {count} {verb}")
    if (report := outcome.verification) is not None:
        for finding in report.findings[:_SHOWN_FINDINGS]:
            context.warn(f"{finding.subject}: {finding.message}")
        context.say("verification: " + ("good" if report.ok else plural(len(report.findings), "finding")))
    for error in outcome.errors:
        for line in lines(error):
            err(line)
