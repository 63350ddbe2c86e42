"""`verify`, `prune`, `delete`, `gc` and `repair`: keep a repository good and small."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backstay.cli import choosing, jsonout
from backstay.cli.context import Context, context_of
from backstay.cli.render import local_time, plural, print_heading, print_table
from backstay.core.quantities import format_count, format_size
from backstay.errors import CorruptedBackup, InvalidRequest

if TYPE_CHECKING:
    from backstay.operations.prune import PrunePlan
    from backstay.operations.verify import VerifyOptions, VerifyReport
    from backstay.repository.collector import CollectionPlan, CollectionResult
    from backstay.repository.snapshots import Manifest

SHOWN_FINDINGS = 50
_SIZE = re.compile(r"([0-9]+)\s*(?:([kmgt])(?:i?b)?|b)?", re.IGNORECASE)
_ALL_DATA = "100%"


class CheckName(StrEnum):
    """What --check takes."""

    integrity = "integrity"
    completeness = "completeness"
    size = "size"
    signature = "signature"


class VerifyCommand(typer.core.TyperCommand):
    """A command whose --read-data may stand alone or carry a value behind `=`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's context
        end = args.index("--") if "--" in args else len(args)
        whole = [f"--read-data={_ALL_DATA}" if arg == "--read-data" else arg for arg in args[:end]]
        return super().parse_args(ctx, whole + args[end:])


def verify(
    ctx: typer.Context,
    snapshot: Annotated[str | None, typer.Argument(metavar="[ID]", help="Only what this snapshot needs.", show_default=False)] = None,
    check: Annotated[list[CheckName] | None, typer.Option(help="Only these checks; repeatable.", show_default=False)] = None,
    min_bytes: Annotated[str | None, typer.Option(metavar="N", help="Each snapshot must hold at least so much, such as 500MiB.", show_default=False)] = None,
    read_data: Annotated[str | None, typer.Option(metavar="[=N%]", help="Read, decrypt and decode all packs, or a random part of them.", show_default=False)] = None,
    rehearse: Annotated[Path | None, typer.Option(metavar="DIR", help="Really restore, into a scratch directory below DIR, and compare.", show_default=False)] = None,
) -> int:
    """Check that snapshots are whole, genuine and restorable."""
    from backstay.operations.verify import ALL_CHECKS, VerifyOptions, run_verify

    context = context_of(ctx)
    options = VerifyOptions(
        checks=tuple(word.value for word in check) if check else ALL_CHECKS,
        read_data=_part(read_data) if read_data is not None else 0.0,
        min_bytes=parse_size(min_bytes) if min_bytes is not None else None,
        rehearse=rehearse,
    )
    with context.open() as repository, context.watching() as events:
        wanted = None if snapshot is None else [choosing.one(context, repository, snapshot).id]
        report = run_verify(repository, wanted, options, events=events)
    context.result(_report(report), lambda: _show_report(context, report, options))
    return 0 if report.ok else CorruptedBackup.exit_status


def _part(text: str) -> float:
    """The part of all packs that `10%` means."""
    number = text.strip().removesuffix("%")
    try:
        percent = float(number)
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise InvalidRequest(
            f"cannot read the part {text!r}", cause="it is no percentage from 0 to 100", hint="write --read-data or --read-data=10%"
        )
    return percent / 100


def parse_size(text: str) -> int:
    """The number of bytes that `500MiB`, `2g` or `4096` means; units are binary."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InvalidRequest(f"cannot read the size {text!r}", cause="it is no whole number with a unit", hint="write for example 500MiB or 2g")
    return int(found[1]) << 10 * (" kmgt".index((found[2] or " ").lower()))


def _report(report: VerifyReport) -> dict[str, object]:
    return {
        "ok": report.ok,
        "snapshots": report.snapshots,
        "packs": report.packs,
        "packs_read": report.packs_read,
        "bytes_read": report.bytes_read,
        "results": report.results,
        "findings": report.findings,
    }


def _show_report(context: Context, report: VerifyReport, options: VerifyOptions) -> None:
    for result in report.results:
        context.say(f"{'ok   ' if result.ok else 'BAD  '} {result.check:<13} {result.details}")
    for finding in report.findings[:SHOWN_FINDINGS]:
        context.warn(f"{finding.subject}: {finding.message}")
        if finding.hint:
            context.warn(f"  hint: {finding.hint}")
    if len(report.findings) > SHOWN_FINDINGS:
        context.warn(f"and {plural(len(report.findings) - SHOWN_FINDINGS, 'more finding')}")
    if not report.ok:
        context.say(f"{plural(len(report.findings), 'finding')}: this repository needs attention")
    elif options.read_data >= 1:
        context.say("everything is good")
    else:
        context.say("no problem found; `backstay verify --read-data` reads all data as well")


def delete(
    ctx: typer.Context,
    snapshots: Annotated[list[str], typer.Argument(metavar="ID...", help="Snapshots to delete.", show_default=False)],
) -> int:
    """Delete snapshots; `gc` frees their space."""
    context = context_of(ctx)
    with context.open(index=False) as repository:
        chosen = {manifest.id: manifest for manifest in (choosing.one(context, repository, text) for text in snapshots)}
        for ident in chosen:
            repository.snapshots.drop(ident, "deleted by hand", context.clock)

    def show() -> None:
        for manifest in chosen.values():
            context.say(f"deleted snapshot {manifest.id} of {local_time(manifest.time)}")
        context.say("`backstay gc` frees the space")

    context.result({"deleted": list(chosen)}, show)
    return 0


def prune(
    ctx: typer.Context,
    keep_last: Annotated[int | None, typer.Option(metavar="N", min=0, help="Keep the newest N.", show_default=False)] = None,
    keep_hourly: Annotated[int | None, typer.Option(metavar="N", min=0, help="Keep one for each of N hours.", show_default=False)] = None,
    keep_daily: Annotated[int | None, typer.Option(metavar="N", min=0, help="Keep one for each of N days.", show_default=False)] = None,
    keep_weekly: Annotated[int | None, typer.Option(metavar="N", min=0, help="Keep one for each of N weeks.", show_default=False)] = None,
    keep_monthly: Annotated[int | None, typer.Option(metavar="N", min=0, help="Keep one for each of N months.", show_default=False)] = None,
    keep_yearly: Annotated[int | None, typer.Option(metavar="N", min=0, help="Keep one for each of N years.", show_default=False)] = None,
    keep_within: Annotated[str | None, typer.Option(metavar="DUR", help="Keep all that are at most so much older than the newest, such as 30d or 1y6m.", show_default=False)] = None,
    keep_tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="Keep all with this tag; repeatable.", show_default=False)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only tell what would go.")] = False,
) -> int:
    """Delete snapshots that no rule keeps; the newest of each source always stays."""
    from backstay.core.times import Span
    from backstay.operations.prune import execute_prune, plan_prune
    from backstay.operations.retention import RetentionRules

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
    with context.open(index=False) as repository:
        plan = plan_prune(repository, rules, now=context.clock.now(), zone=context.zone)
        if not context.json and not context.quiet:
            _show_decisions(context, plan)
        if not dry_run:
            execute_prune(repository, plan)
    context.result(_prune_document(plan, dry_run=dry_run), lambda: _tell_pruned(context, plan, dry_run=dry_run))
    return 0


def _prune_document(plan: PrunePlan, *, dry_run: bool) -> dict[str, object]:
    def told(manifest: Manifest, reasons: tuple[str, ...]) -> dict[str, object]:
        return {"id": manifest.id, "time": manifest.time, "host": manifest.host, "name": manifest.name, "reasons": reasons}

    return {
        "dry_run": dry_run,
        "keep": [told(decision.candidate, decision.reasons) for decision in plan.kept],
        "drop": [told(decision.candidate, decision.reasons) for decision in plan.dropped],
    }


def _show_decisions(context: Context, plan: PrunePlan) -> None:
    from backstay.cli.look import source_title
    from backstay.repository.selectors import shortest_prefixes

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


def _tell_pruned(context: Context, plan: PrunePlan, *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    context.say(f"{plural(len(plan.dropped), 'snapshot')} {would}dropped, {format_count(len(plan.kept))} {would}kept")
    if plan.dropped and not dry_run:
        context.say("`backstay gc` frees the space")


def gc(
    ctx: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only tell what would be freed.")] = False,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Also when no snapshot is left: everything goes.")] = False,
) -> int:
    """Free the space that no snapshot needs; backups may run meanwhile."""
    from backstay.repository.collector import Collector

    context = context_of(ctx)
    with context.open() as repository, context.watching() as events:
        collector = Collector(repository, events=events)
        plan = collector.plan(allow_empty=allow_empty)
        result = None if dry_run else collector.execute(plan)
    context.result(_collection(plan, result), lambda: _show_collection(context, plan, result))
    return 0


def _collection(plan: CollectionPlan, result: CollectionResult | None) -> dict[str, object]:
    planned = {
        "dry_run": result is None,
        "packs": plan.total_packs,
        "bytes": plan.total_bytes,
        "unused_packs": len(plan.dead),
        "unused_bytes": plan.dead_bytes,
        "packs_to_rewrite": len(plan.sparse),
        "bytes_to_rewrite": plan.rewritten_bytes,
        "bytes_to_free": plan.freed_bytes,
    }
    return planned if result is None else planned | jsonout.plain(result)


def _show_collection(context: Context, plan: CollectionPlan, result: CollectionResult | None) -> None:
    context.say(f"{plural(plan.total_packs, 'pack')} with {format_size(plan.total_bytes)}: {plural(len(plan.dead), 'is', 'are')} unused, {plural(len(plan.sparse), 'is', 'are')} mostly unused or small")
    if result is None:
        context.say(f"{format_size(plan.freed_bytes)} would be freed, {format_size(plan.rewritten_bytes)} rewritten; nothing was changed")
        return
    context.say(f"freed {format_size(result.freed_bytes)}, deleted {plural(result.deleted_packs, 'pack')}, rewrote {format_size(result.rewritten_bytes)}")
    if result.fenced:
        context.say(f"cancelled {plural(len(result.fenced), 'backup')} that had died")
    if result.waiting_for:
        context.say(f"{plural(len(result.waiting_for), 'backup is', 'backups are')} still running: the next gc frees the rest")


def repair_index(ctx: typer.Context) -> int:
    """Rebuild the index from the packs."""
    from backstay.operations.repair import repair_index as work

    context = context_of(ctx)
    with context.open(index=False) as repository, context.watching() as events:
        result = work(repository, events=events)
    return _repaired(context, result)


def repair_snapshots(
    ctx: typer.Context,
    snapshots: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Only these snapshots.", show_default=False)] = None,
) -> int:
    """Make snapshots without the items whose data is lost, and accept lost snapshots."""
    from backstay.operations.repair import repair_snapshots as work

    context = context_of(ctx)
    with context.open() as repository, context.watching() as events:
        ids = [choosing.one(context, repository, text).id for text in snapshots] if snapshots else None
        result = work(repository, ids, events=events)
    return _repaired(context, result)


def repair_packs(
    ctx: typer.Context,
    packs: Annotated[list[str] | None, typer.Argument(metavar="[PACK]...", help="Only these packs, by their SHA-256.", show_default=False)] = None,
) -> int:
    """Save what can be read of damaged packs into new ones."""
    from backstay.operations.repair import repair_packs as work

    context = context_of(ctx)
    with context.open() as repository, context.watching() as events:
        result = work(repository, packs or None, events=events)
    return _repaired(context, result)


def _repaired(context: Context, result: object) -> int:
    context.result(result, lambda: context.say(str(result)))
    return 0
