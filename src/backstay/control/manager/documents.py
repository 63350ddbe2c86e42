"""Results as documents of JSON: what jobs keep, and what the interface answers."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeAlias

from backstay.control.manager.backups import Backup
from backstay.control.manager.results import (
    BackupRun,
    CheckOutcome,
    CheckPassed,
    PlannedPart,
    RestoredPart,
    RestorePreview,
    RestoreRun,
)
from backstay.control.runs.run import PolicyOutcome, SourceOutcome
from backstay.core.names import printable
from backstay.errors.documents import problem_document
from backstay.operations.backup.request import BackupResult
from backstay.operations.verify.bad_objects import bad_objects

Document: TypeAlias = dict[str, Any]

_SHOWN = 100  # of paths that may be many


def stamp(moment: datetime) -> str:
    """A time as documents have it."""
    return moment.isoformat().replace("+00:00", "Z")


def backup_document(backup: Backup) -> Document:
    """One backup."""
    times = {"time": stamp(backup.time), "recorded_at": stamp(backup.recorded_at)}
    return asdict(backup) | times | {"tags": list(backup.tags), "paths": list(backup.paths)}


def run_document(run: BackupRun) -> Document:
    """A run of a policy: the result of a job."""
    ids = [backup.id for backup in run.backups]
    return {
        "backups": ids,
        "backup_id": ids[0] if ids else None,
        "policy": run.policy,
        "dry_run": run.dry_run,
        "duration_s": round(run.duration_s, 3),
        "notices": list(run.notices),
        "outcome": outcome_document(run.outcome),
    }


def outcome_document(outcome: PolicyOutcome) -> Document:
    """What became of each stage."""
    plan, report = outcome.retention, outcome.verification
    retention = None
    if plan is not None:
        retention = {
            "keep": [decision.candidate.id for decision in plan.kept],
            "drop": [decision.candidate.id for decision in plan.dropped],
        }
    verification = None
    if report is not None:
        findings = [asdict(finding) for finding in report.findings[:_SHOWN]]
        verification = {"ok": report.ok, "results": [asdict(one) for one in report.results], "findings": findings}
        verification |= asdict(bad_objects(report.findings))
    return {
        "status": outcome.status,
        "sources": [_source_document(source) for source in outcome.sources],
        "retention": retention,
        "verification": verification,
        "hooks": [
            {
                "when": hook.when,
                "program": hook.command[0],  # what follows it may be secret
                "error": None if hook.error is None else problem_document(hook.error),
            }
            for hook in outcome.hooks
        ],
        "error": None if outcome.error is None else problem_document(outcome.error),
    }


def restore_document(run: RestoreRun) -> Document:
    """A restore: the result of a job, and what `verify_restore` goes by."""
    return {
        "mode": run.mode,
        "files": run.files,
        "bytes": run.bytes,
        "duration_s": round(run.duration_s, 3),
        "include": list(run.include),
        "exclude": list(run.exclude),
        "ok": run.ok,
        "parts": [_part_document(part) for part in run.parts],
    }


def preview_document(preview: RestorePreview) -> Document:
    """What a restore would do."""
    return {
        "files": preview.files,
        "bytes": preview.bytes,
        "conflict": preview.conflict,
        "conflicts": list(preview.conflicts[:_SHOWN]),
        "conflict_count": preview.conflict_count,
        "refused": preview.refused,
        "fits": preview.fits,
        "seconds": round(preview.seconds, 1),
        "based_on": preview.based_on,
        "parts": [_planned_document(part) for part in preview.parts],
    }


def checks_document(outcomes: list[CheckOutcome]) -> Document:
    """The outcomes of checks."""
    return {"ok": all(one.ok for one in outcomes), "checks": [_check_document(one) for one in outcomes]}


def _check_document(outcome: CheckOutcome) -> Document:
    told: Document = {"check": outcome.check, "ok": outcome.ok, "details": outcome.details}
    if isinstance(outcome, CheckPassed):
        return told
    return told | {"error": outcome.error, "findings": [asdict(one) for one in outcome.findings[:_SHOWN]]}


def _source_document(source: SourceOutcome) -> Document:
    told: Document = {"name": source.name, "type": source.type, "error": None}
    if source.result is not None:
        return told | result_document(source.result)
    return told | {"error": None if source.error is None else problem_document(source.error)}


def result_document(result: BackupResult) -> Document:
    """What a backup of one source did."""
    told = asdict(result) | {"duration_s": round(result.duration_s, 3)}
    problems = [{"path": printable(one.path), "message": one.message} for one in result.errors[:_SHOWN]]
    return told | {"errors": problems, "error_count": len(result.errors)}


def _part_document(part: RestoredPart) -> Document:
    return asdict(part) | {
        "schemas": list(part.schemas),
        "tables": list(part.tables),
        "errors": [asdict(item) for item in part.errors[:_SHOWN]],
        "problems": list(part.problems[:_SHOWN]),
    }


def _planned_document(part: PlannedPart) -> Document:
    lists = {
        "conflicts": list(part.conflicts[:_SHOWN]),
        "deletions": list(part.deletions[:_SHOWN]),
        "warnings": list(part.warnings),
    }
    return asdict(part) | lists | {"fits": part.fits}
