"""The report of a verification or a rehearsal: who checked what, when, with which outcome, as a document.

All numbers are whole, so that the canonical form (RFC 8785) is the same everywhere: milliseconds and bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

from backstay.core.version import VERSION
from backstay.operations.findings import Finding
from backstay.operations.verify.run import VerifyOptions, VerifyReport
from backstay.operations.verify.trial import Outcome, Rehearsed
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest

Document: TypeAlias = dict[str, Any]  # of JSON
Kind: TypeAlias = Literal["verification", "rehearsal"]

FORMAT: Final = "backstay-evidence-1"
_MOST_FINDINGS: Final = 1000
_MOST_TEXT: Final = 4000  # characters of a message: evidence is kept for years


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """What a report says beside the outcomes; `id` is a ULID, times have a zone, `host` is this machine."""

    id: str
    host: str
    started: datetime
    finished: datetime
    policy: str | None = None
    job: str | None = None
    actor: str | None = None


def report_of(
    repository: Repository,
    manifests: Sequence[Manifest],
    options: VerifyOptions,
    found: VerifyReport,
    occasion: Occasion,
) -> Document:
    """The report of what `run_verify` found about these snapshots. Raises what reading their digests raises."""
    rehearsed = {one.snapshot: one for one in found.rehearsals}
    kind: Kind = "rehearsal" if found.rehearsals else "verification"
    return {
        "format": FORMAT,
        "kind": kind,
        "id": occasion.id,
        "ok": found.ok,
        "program": f"backstay {VERSION}",
        "host": occasion.host,
        "repository": repository.header.uuid,
        "policy": occasion.policy,
        "job": occasion.job,
        "actor": occasion.actor,
        "started": _moment(occasion.started),
        "finished": _moment(occasion.finished),
        "duration_ms": _ms((occasion.finished - occasion.started).total_seconds()),
        "scope": _scope(options, found),
        "checks": [
            {
                "check": result.check,
                "ok": result.ok,
                "details": _text(result.details),
                "duration_ms": _ms(result.duration_s),
            }
            for result in found.results
        ],
        "backups": [
            _backup(manifest, repository.snapshots.digest(manifest.id), rehearsed.get(manifest.id))
            for manifest in manifests
        ],
        "findings": [_finding(finding) for finding in found.findings[:_MOST_FINDINGS]],
        "findings_in_all": len(found.findings),
    }


def _scope(options: VerifyOptions, found: VerifyReport) -> Document:
    """How much was looked at: all of it, a random part, or no data at all."""
    percent = round(options.read_data * 100)
    read = "complete" if percent >= 100 else "sampled" if percent > 0 else "none"
    return {
        "data": "complete" if found.rehearsals else read,
        "percent": 100 if found.rehearsals else percent,
        "packs": found.packs,
        "packs_read": found.packs_read,
        "bytes_read": found.bytes_read,
        "checks_asked": list(options.checks),
    }


def _backup(manifest: Manifest, digest: bytes, rehearsed: Rehearsed | None) -> Document:
    return {
        "id": manifest.id,
        "sha256": digest.hex(),
        "name": manifest.name,
        "kind": manifest.kind,
        "source": manifest.source,
        "host": manifest.host,
        "time": _moment(manifest.time),
        "files": manifest.stats.files,
        "bytes": manifest.stats.bytes,
        "rehearsal": None if rehearsed is None else _rehearsal(rehearsed),
    }


def _rehearsal(done: Rehearsed) -> Document:
    """`rto_ms` is how long it took until the data could be used again, `bytes_per_s` the throughput until then."""
    return {
        "ok": done.ok,
        "files": done.files,
        "bytes": done.bytes,
        "files_compared": done.compared,
        "rto_ms": _ms(done.usable_s),
        "bytes_per_s": round(done.bytes / done.usable_s) if done.usable_s > 0 else 0,
        "duration_ms": _ms(done.duration_s),
        "checks": [_outcome(outcome) for outcome in done.outcomes],
    }


def _outcome(outcome: Outcome) -> Document:
    return {
        "check": _text(outcome.check),
        "status": outcome.status,
        "details": _text(outcome.details),
        "duration_ms": _ms(outcome.duration_s),
    }


def _finding(finding: Finding) -> Document:
    return {
        "check": finding.check,
        "severity": finding.severity,
        "subject": _text(finding.subject),
        "message": _text(finding.message),
        "hint": _text(finding.hint),
    }


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _text(text: str) -> str:
    """Whatever a program said, as text that UTF-8 can hold and a report has room for."""
    sound = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return sound if len(sound) <= _MOST_TEXT else sound[:_MOST_TEXT] + "…"
