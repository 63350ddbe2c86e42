"""`verify` and `repair`: see that a repository is good, and mend it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backstay.cli import choosing, copies, jsonout
from backstay.cli import evidence as proofs
from backstay.cli.context import Context, context_of
from backstay.cli.options import argument, option
from backstay.core.ids import is_ulid
from backstay.core.quantities import format_count, plural
from backstay.core.sizes import parse_size
from backstay.errors import CorruptedBackup, InsufficientSpace, InvalidRequest

if TYPE_CHECKING:
    from backstay.operations.repair.run import RepairResult
    from backstay.operations.verify.run import VerifyOptions, VerifyReport
    from backstay.repository.repository import Repository

SHOWN_FINDINGS = 50
_ALL_DATA = "100%"
_MARKS = {"ok": "ok   ", "warning": "warn ", "failed": "BAD  ", "skipped": "-    "}


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
    snapshot: Annotated[str | None, argument("ID", "Only what this snapshot needs.")] = None,
    check: Annotated[
        list[CheckName] | None,
        option("CHECK", "Only this check: integrity, completeness, size or signature; repeatable."),
    ] = None,
    min_bytes: Annotated[str | None, option("N", "Each snapshot must hold at least so much, such as 500MiB.")] = None,
    read_data: Annotated[
        str | None, option("[=N%]", "Read, decrypt and decode all packs, or a random part of them.")
    ] = None,
    rehearse: Annotated[
        Path | None, option("DIR", "Really restore, into a scratch directory below DIR, and compare.")
    ] = None,
    sql: Annotated[
        list[str] | None, option("QUERY", "With --rehearse: a query that must give one true value; repeatable.")
    ] = None,
    command: Annotated[
        list[str] | None,
        option("COMMAND", "With --rehearse: what sh must carry out well; it finds the files in $BACKSTAY_SCRATCH."),
    ] = None,
    server: Annotated[
        str | None, option("URL", "With --rehearse: a server of PostgreSQL in which dumps may be tried.")
    ] = None,
    evidence: Annotated[
        list[Path] | None, option("FILE", "Write the report, to FILE.html or FILE.json; repeatable.")
    ] = None,
    evidence_key: Annotated[
        Path | None, option("FILE", "Sign the report with this key, of `backstay graph validator`.")
    ] = None,
) -> int:
    """Check that snapshots are whole, genuine and restorable."""
    context = context_of(ctx)
    trial = proofs.trial_of(context, sql=sql or (), commands=command or (), server=server, rehearse=rehearse)
    signer = proofs.signer_of(evidence_key, evidence or ())
    part = _part(read_data) if read_data is not None else 0.0
    least = parse_size(min_bytes) if min_bytes is not None else None
    with (
        context.open(then=["backstay.operations.verify.run"]) as repository,
        context.watching(tidies=rehearse is not None) as events,
    ):
        from backstay.operations.copies.medium import is_medium
        from backstay.operations.verify.run import ALL_CHECKS, VerifyOptions, run_verify

        wanted = None if snapshot is None else [choosing.one(context, repository, snapshot).id]
        options = VerifyOptions(
            checks=tuple(word.value for word in check) if check else ALL_CHECKS,
            read_data=part,
            min_bytes=least,
            rehearse=rehearse,
            trial=trial,
            reserve=not is_medium(repository.backend),
        )
        began = repository.clock.now()
        report = run_verify(repository, wanted, options, events=events)
        sealed = None
        if evidence:
            sealed = proofs.write(repository, evidence, signer, options, report, wanted=wanted, began=began)

    def show() -> None:
        _show_report(context, report, options)
        for file in evidence or ():
            context.say(f"evidence: {file}, SHA-256 {sealed}")

    context.result(_report(report) | {"evidence": sealed}, show)
    return 0 if report.failure is None else report.failure.exit_status


def _part(text: str) -> float:
    """The part of all packs that `10%` means."""
    number = text.strip().removesuffix("%")
    try:
        percent = float(number)
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= 100:
        raise InvalidRequest(
            f"cannot read the part {text!r}",
            cause="it is no percentage from 0 to 100",
            hint="write --read-data or --read-data=10%",
        )
    return percent / 100


def _report(report: VerifyReport) -> dict[str, object]:
    return {
        "ok": report.ok,
        "snapshots": report.snapshots,
        "packs": report.packs,
        "packs_read": report.packs_read,
        "bytes_read": report.bytes_read,
        "wal_objects": report.wal_objects,
        "wal_read": report.wal_read,
        "results": report.results,
        "findings": report.findings,
        "rehearsals": report.rehearsals,
    }


def _show_report(context: Context, report: VerifyReport, options: VerifyOptions) -> None:
    for result in report.results:
        context.say(f"{'ok   ' if result.ok else 'BAD  '} {result.check:<13} {result.details}")
    for rehearsed in report.rehearsals:
        for outcome in rehearsed.outcomes[2:]:  # the first are told above: the files
            context.say(f"{_MARKS[outcome.status]} {outcome.check}: {outcome.details}")
    for finding in report.findings[:SHOWN_FINDINGS]:
        context.warn(f"{finding.subject}: {finding.message}")
        if finding.hint:
            context.warn(f"  hint: {finding.hint}")
    if len(report.findings) > SHOWN_FINDINGS:
        context.warn(f"and {plural(len(report.findings) - SHOWN_FINDINGS, 'more finding')}")
    if isinstance(report.failure, InsufficientSpace):
        context.say("there was no room to rehearse in, and no problem was found")
    elif not report.ok:
        context.say(f"{plural(len(report.findings), 'finding')}: this repository needs attention")
    elif options.read_data >= 1:
        context.say("everything is good")
    else:
        context.say("no problem found; `backstay verify --read-data` reads all data as well")
    if context.mirror:
        context.say(
            "of the copies only one had to have each object; `-r REPO` without --mirror looks at one of them alone"
        )


def repair_index(ctx: typer.Context) -> int:
    """Rebuild the index from the packs."""
    from backstay.operations.repair.run import repair_index as work

    context = context_of(ctx)
    with context.open(index=False) as repository, context.watching() as events:
        result = work(repository, events=events)
    return _repaired(context, result)


def repair_snapshots(
    ctx: typer.Context,
    snapshots: Annotated[list[str] | None, argument("ID", "Only these snapshots.")] = None,
) -> int:
    """Make snapshots without the items whose data is lost, and accept lost snapshots."""
    from backstay.operations.repair.run import repair_snapshots as work

    context = context_of(ctx)
    with context.open() as repository, context.watching() as events:
        ids = [_even_damaged(context, repository, text) for text in snapshots] if snapshots else None
        result = work(repository, ids, events=events)
    return _repaired(context, result)


def _even_damaged(context: Context, repository: Repository, text: str) -> str:
    """A snapshot's id from its beginning, also of one that cannot be read or has vanished."""
    begun = [ident for ident in repository.snapshots.taken() if ident.startswith(text.lower())]
    if len(begun) == 1:
        return begun[0]
    return text.lower() if is_ulid(text.lower()) else choosing.one(context, repository, text).id


def repair_packs(
    ctx: typer.Context,
    packs: Annotated[list[str] | None, argument("PACK", "Only these packs, by their SHA-256.")] = None,
    from_copy: Annotated[
        str | None,
        option("REPO", "Bring back objects of all kinds, bit by bit, that this copy of the repository still has."),
    ] = None,
) -> int:
    """Save what can be read of damaged packs into new ones, or get whole ones from a copy."""
    from backstay.operations.repair.run import repair_packs as work

    context = context_of(ctx)
    if from_copy is not None:
        return _repaired(context, copies.heal(context, from_copy, packs or None))
    with context.open() as repository, context.watching() as events:
        result = work(repository, packs or None, events=events)
    return _repaired(context, result)


def _repaired(context: Context, result: RepairResult) -> int:
    bad = any(finding.severity == "error" for finding in result.findings)
    context.result(jsonout.plain(result) | {"changed": result.changed}, lambda: _show_repair(context, result))
    return CorruptedBackup.exit_status if bad else 0


def _show_repair(context: Context, result: RepairResult) -> None:
    counts = {
        "objects brought back from the copy": len(result.objects_healed),
        "records of collections replaced": len(result.collections_mended),
        "packs added to the index": result.packs_indexed,
        "index segments removed": result.segments_removed,
        "damaged packs removed": len(result.packs_removed),
        "chunks saved from them": result.chunks_saved,
        "chunks lost": result.chunks_lost,
        "snapshots dropped": len(result.snapshots_dropped),
    }
    for what, count in counts.items():
        if count:
            context.say(f"{what}: {format_count(count)}")
    if result.chunks_lost:
        context.say(
            "the next backup stores again what its source still holds, and `backstay repair packs --from-copy` brings "
            "back what a copy has; `backstay repair snapshots` leaves out the rest"
        )
    for old, new in result.snapshots_replaced:
        context.say(f"snapshot {old} was replaced by {new}")
    for lost in result.lost[:SHOWN_FINDINGS]:
        context.warn(f"lost: {lost.path} of snapshot {lost.snapshot}")
    if len(result.lost) > SHOWN_FINDINGS:
        context.warn(f"and {plural(len(result.lost) - SHOWN_FINDINGS, 'more lost path')}")
    for finding in result.findings:
        context.warn(f"{finding.subject}: {finding.message}")
        if finding.hint:
            context.warn(f"  hint: {finding.hint}")
    if result.waiting_for:
        context.say(f"{plural(len(result.waiting_for), 'backup is', 'backups are')} still running: `gc` finishes later")
    if not result.changed and not result.findings:
        context.say("nothing needed repair")
