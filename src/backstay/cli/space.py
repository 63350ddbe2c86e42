"""`delete`, `prune` and `gc`: drop snapshots and free what nothing needs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import typer

from backstay.cli import choosing, jsonout, wal_expiry
from backstay.cli.context import Context, context_of
from backstay.cli.options import argument, flag, option
from backstay.cli.render import local_time, print_heading, print_table
from backstay.core.local_zone import LOCAL
from backstay.core.quantities import format_count, format_size, plural
from backstay.errors import HoldViolation, Interrupted, NotFound, StorageRefused

if TYPE_CHECKING:
    from backstay.operations.retention.prune import PrunePlan, PruneResult
    from backstay.repository.collection.plan import CollectionPlan, CollectionResult
    from backstay.repository.repository import Repository
    from backstay.repository.snapshots.store import Manifest

_REFUSALS: Final = 10  # that are named


def delete(
    ctx: typer.Context,
    snapshots: Annotated[list[str], argument("ID", "Snapshots to delete.")],
) -> int:
    """Delete snapshots; `gc` frees their space."""
    context = context_of(ctx)
    with context.open(index=False) as repository:
        chosen, gone = _to_delete(context, repository, snapshots)
        repository.snapshots.holds.require_free(chosen)  # before the first of them goes
        _drop(context, repository, list(chosen))

    def show() -> None:
        for ident in gone:
            context.say(f"snapshot {ident} was deleted before")
        for manifest in chosen.values():
            context.say(f"deleted snapshot {manifest.id} of {local_time(manifest.time)}")
        if chosen:
            context.say("`backstay gc` frees the space")

    context.result({"deleted": list(chosen), "deleted_before": gone}, show)
    return 0


def _to_delete(context: Context, repository: Repository, texts: Sequence[str]) -> tuple[dict[str, Manifest], list[str]]:
    """(the snapshots that are meant, ids of those deleted before): the same command may be run again.

    Raises NotFound for what never was the id of one, or its beginning.
    """
    from backstay.repository.snapshots.selectors import MINIMUM_PREFIX

    chosen: dict[str, Manifest] = {}
    gone: list[str] = []
    for text in texts:
        try:
            manifest = choosing.one(context, repository, text)
        except NotFound:
            before = repository.snapshots.dropped_with(text.lower()) if len(text) >= MINIMUM_PREFIX else set()
            if len(before) != 1:
                raise
            gone += before - {*gone}
        else:
            chosen[manifest.id] = manifest
    return chosen, gone


def _drop(context: Context, repository: Repository, doomed: Sequence[str]) -> None:
    """One after the other; who asks to stop between two is told which are gone."""
    from backstay.repository.collection.reserve import with_reserve

    with context.interruptible() as (_, stop_if_asked):
        for place, ident in enumerate(doomed):
            try:
                stop_if_asked()
            except Interrupted as stop:
                raise _between(stop, doomed[:place], doomed[place:]) from stop
            with_reserve(repository, partial(repository.snapshots.drop, ident, "deleted by hand", context.clock))
        context.interrupts.too_late()


def _between(stop: Interrupted, deleted: Sequence[str], left: Sequence[str]) -> Interrupted:
    if not deleted:
        return stop
    return Interrupted(
        "interrupted",
        cause=f"a signal asked it to stop; deleted before that: {', '.join(deleted)}",
        hint=f"`backstay delete {' '.join(left)}` deletes the rest",
    )


def prune(
    ctx: typer.Context,
    keep_last: Annotated[int | None, option("N", "Keep the newest N.")] = None,
    keep_hourly: Annotated[int | None, option("N", "Keep one for each of N hours.")] = None,
    keep_daily: Annotated[int | None, option("N", "Keep one for each of N days.")] = None,
    keep_weekly: Annotated[int | None, option("N", "Keep one for each of N weeks.")] = None,
    keep_monthly: Annotated[int | None, option("N", "Keep one for each of N months.")] = None,
    keep_yearly: Annotated[int | None, option("N", "Keep one for each of N years.")] = None,
    keep_within: Annotated[
        str | None, option("DUR", "Keep all that are at most so much older than the newest, such as 30d or 1y6m.")
    ] = None,
    keep_tag: Annotated[list[str] | None, option("TAG", "Keep all with this tag; repeatable.")] = None,
    wal_window: Annotated[
        str | None,
        option(
            "SPAN",
            "Of PostgreSQL clusters keep the WAL with which so much time can be recovered, such as 14d; "
            "else all from the oldest base backup on that stays.",
        ),
    ] = None,
    dry_run: Annotated[bool, flag("Only tell what would go.", "--dry-run", "-n")] = False,
) -> int:
    """Delete snapshots that no rule keeps, and WAL that nothing needs; the newest of each source always stays."""
    from backstay.core.times import Span
    from backstay.operations.retention.prune import execute_prune, plan_prune
    from backstay.operations.retention.rules import RetentionRules

    context = context_of(ctx)
    rules = RetentionRules(
        keep_last=keep_last,
        keep_hourly=keep_hourly,
        keep_daily=keep_daily,
        keep_weekly=keep_weekly,
        keep_monthly=keep_monthly,
        keep_yearly=keep_yearly,
        keep_within=Span.parse(keep_within) if keep_within is not None else None,
        keep_tags=tuple(keep_tag or ()),
    )
    window = wal_expiry.window_length(context, wal_window)
    result = None
    with context.open(index=False) as repository:
        with context.watching() as events:
            now = context.clock.now()
            plan = plan_prune(repository, rules, now=now, zone=LOCAL, wal_window=window, events=events)
        if not context.json and context.talks:
            _show_decisions(context, plan)
            wal_expiry.show_plans(context, plan.wal)
        if not dry_run:
            with context.watching() as events:
                result = execute_prune(repository, plan, events=events)
    context.result(_prune_document(plan, result), lambda: _tell_pruned(context, plan, result))
    return 0


def _prune_document(plan: PrunePlan, result: PruneResult | None) -> dict[str, object]:
    def told(manifest: Manifest, reasons: tuple[str, ...]) -> dict[str, object]:
        return {
            "id": manifest.id,
            "time": manifest.time,
            "host": manifest.host,
            "name": manifest.name,
            "reasons": reasons,
        }

    return {
        "dry_run": result is None,
        "keep": [told(decision.candidate, decision.reasons) for decision in plan.kept],
        "drop": [told(decision.candidate, decision.reasons) for decision in plan.dropped],
        "wal": [
            wal_expiry.document(expiry, done)
            for expiry, done in zip(plan.wal, [None] * len(plan.wal) if result is None else result.wal, strict=True)
        ],
    }


def _show_decisions(context: Context, plan: PrunePlan) -> None:
    from backstay.cli.look import source_title
    from backstay.repository.snapshots.selectors import shortest_prefixes

    prefixes = shortest_prefixes(decision.candidate.id for decision in plan.decisions)
    groups: dict[tuple[str, str], list[tuple[str, ...]]] = {}
    titles: dict[tuple[str, str], str] = {}
    for decision in plan.decisions:
        manifest = decision.candidate
        key = (manifest.host, manifest.source)
        titles.setdefault(key, source_title(manifest))
        word = "keep" if decision.keep else "drop"
        row = (word, prefixes[manifest.id], local_time(manifest.time)[:-3], ", ".join(decision.reasons))
        groups.setdefault(key, []).append(row)
    for key, rows in groups.items():
        print_heading(titles[key], context.environ)
        print_table(("", "ID", "Time", "Because"), rows, context.environ, indent=2)


def _tell_pruned(context: Context, plan: PrunePlan, result: PruneResult | None) -> None:
    would = "would be " if result is None else ""
    context.say(f"{plural(len(plan.dropped), 'snapshot')} {would}dropped, {format_count(len(plan.kept))} {would}kept")
    if plan.dropped and result is not None:
        context.say("`backstay gc` frees the space")
    if plan.wal:
        wal_expiry.tell_results(context, plan.wal, None if result is None else result.wal)


def gc(
    ctx: typer.Context,
    dry_run: Annotated[bool, flag("Only tell what would be freed.", "--dry-run", "-n")] = False,
    allow_empty: Annotated[bool, flag("Also when no snapshot is left: everything goes.", "--allow-empty")] = False,
) -> int:
    """Free the space that no snapshot needs; backups may run meanwhile."""
    from backstay.repository.collection.collector import Collector
    from backstay.repository.collection.reserve import set_aside

    context = context_of(ctx)
    with context.open() as repository, context.watching() as events:
        collector = Collector(repository, events=events)
        try:
            plan = collector.plan(allow_empty=allow_empty)
        except HoldViolation:
            if writers := _first_writers(repository):
                return _wait_for_first(context, writers)
            raise
        result = None if dry_run else collector.execute(plan)
        if not dry_run:
            set_aside(repository)  # also where it never was, or a collection was interrupted
    context.result(_collection(plan, result), lambda: _show_collection(context, plan, result))
    return StorageRefused.exit_status if result is not None and result.refused else 0


def _first_writers(repository: Repository) -> list[str]:
    """The running backups of a repository that never had a snapshot: its packs are theirs."""
    from backstay.repository.sessions.session import running_sessions

    if repository.snapshots.taken() or repository.snapshots.dropped():
        return []
    return [session.id for session in running_sessions(repository.backend, repository.keyring)]


def _wait_for_first(context: Context, writers: list[str]) -> int:
    context.result(
        {"dry_run": False, "deleted_packs": 0, "freed_bytes": 0, "waiting_for": writers},
        lambda: context.say("the first backup is still running: there is nothing to free yet"),
    )
    return 0


def _collection(plan: CollectionPlan, result: CollectionResult | None) -> dict[str, object]:
    planned: dict[str, object] = {
        "dry_run": result is None,
        "packs": plan.total_packs,
        "bytes": plan.total_bytes,
        "unused_packs": len(plan.dead),
        "unused_bytes": plan.dead_bytes,
        "packs_to_rewrite": len(plan.sparse),
        "bytes_to_rewrite": plan.rewritten_bytes,
        "bytes_to_free": plan.freed_bytes,
    }
    return planned if result is None else {**planned, **jsonout.plain(result)}


def _show_collection(context: Context, plan: CollectionPlan, result: CollectionResult | None) -> None:
    context.say(f"{plural(plan.total_packs, 'pack')} with {format_size(plan.total_bytes)} are stored")
    if plan.dead:
        context.say(f"{plural(len(plan.dead), 'pack')} with {format_size(plan.dead_bytes)} in no use")
    if plan.sparse:
        copied = format_size(plan.rewritten_bytes)
        context.say(f"{plural(len(plan.sparse), 'pack')} hardly used or small: {copied} of contents to be copied")
    if result is None:
        context.say(f"about {format_size(plan.freed_bytes)} would be freed; nothing was changed")
        return
    context.say(f"freed {format_size(result.freed_bytes)}" if result.freed_bytes else "there was nothing to free")
    if result.retained_packs:
        until = (
            f"until {result.retained_until:%Y-%m-%d}" if result.retained_until else "as long as a legal hold is on one"
        )
        context.warn(
            f"{plural(result.retained_packs, 'pack')} with {format_size(result.retained_bytes)} in no use are locked: "
            f"the store keeps them {until}, and then as old versions for as long as its lifecycle rules say"
        )
    if result.deferred_packs:
        context.warn(
            f"{plural(result.deferred_packs, 'pack')} with {format_size(result.deferred_bytes)} in no use lie in the "
            "cold tier, which is not attached: a gc that finds it attached deletes them"
        )
    for refusal in result.refused[:_REFUSALS]:
        context.warn(f"the store refused to delete {refusal.name}: {refusal.reason}")
    if more := result.refused[_REFUSALS:]:
        context.warn(f"the store refused to delete {plural(len(more), 'object')} more")
    if result.refused:
        context.warn("a later gc tries again to delete what was refused")
    if result.fenced:
        context.say(f"cancelled {plural(len(result.fenced), 'backup')} that had died")
    if result.waiting_for:
        context.say(f"{plural(len(result.waiting_for), 'backup is', 'backups are')} running: a later gc frees the rest")
