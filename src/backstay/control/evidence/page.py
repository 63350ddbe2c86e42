"""Evidence as one page of HTML that prints well: nothing is loaded from elsewhere, and everything is escaped.

The sealed document lies in the page, so that the file proves itself: a check makes the page anew from it and compares.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any, Final

from backstay.control.evidence.report import Document
from backstay.control.evidence.seal import Evidence, read_json
from backstay.core.quantities import format_count, format_size
from backstay.errors import InvalidRequest

_SEALED: Final = re.compile(rb'<script type="application/json" id="evidence">(.*?)</script>', re.DOTALL)
_WORDS: Final = {"ok": "passed", "warning": "passed with a warning", "failed": "FAILED", "skipped": "not tried"}
_STYLE: Final = """
:root { --ok: #17663a; --bad: #a4161a; --dim: #555; --line: #ccc; }
* { box-sizing: border-box; }
body { font: 10pt/1.35 system-ui, sans-serif; color: #111; background: #fff; }
body { max-width: 190mm; margin: 8mm auto; padding: 0 4mm; }
h1 { font-size: 15pt; margin: 0 0 1mm; }
h2 { font-size: 11pt; margin: 5mm 0 1mm; }
.verdict { font-weight: 700; }
.ok { color: var(--ok); } .failed { color: var(--bad); } .skipped { color: var(--dim); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .4mm 4mm; margin: 2mm 0; }
dt { color: var(--dim); } dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .8mm 2mm .8mm 0; overflow-wrap: anywhere; }
th, td { border-bottom: 1px solid var(--line); }
th { color: var(--dim); font-weight: 600; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.hash { font: 8pt ui-monospace, monospace; }
tr, dl { break-inside: avoid; }
@media print { @page { size: A4; margin: 14mm; } body { margin: 0; max-width: none; padding: 0; } }
"""

# What a Content-Security-Policy may allow of the page: its style, word for word, and nothing else.
STYLE_SOURCE: Final = f"'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"


def as_html(evidence: Evidence) -> str:
    """A whole page."""
    return "\n".join(_page(evidence)) + "\n"


def sealed_in(page: bytes) -> object:
    """The sealed document in a page. Raises InvalidRequest where there is none."""
    found = _SEALED.search(page)
    if found is None:
        raise InvalidRequest(
            "this page holds no evidence",
            cause="the sealed document is not in it",
            hint="`backstay verify --evidence FILE.html` writes such pages",
        )
    try:
        return read_json(found[1])
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            "this page holds no evidence", cause=str(error), hint="get the file again from where it was made"
        ) from error


def _page(evidence: Evidence) -> Iterator[str]:
    report = evidence.report
    title = "Restore rehearsal" if report["kind"] == "rehearsal" else "Verification of backups"
    yield "<!doctype html>"
    yield f'<html lang="en"><head><meta charset="utf-8"><title>{_e(title)} {_e(report["id"])}</title>'
    yield '<meta name="viewport" content="width=device-width">'
    csp = "default-src 'none'; style-src 'unsafe-inline'"
    yield f'<meta http-equiv="Content-Security-Policy" content="{csp}"><style>{_STYLE}</style></head><body>'
    verdict = ("ok", "passed") if report["ok"] else ("failed", "FAILED")
    yield f'<h1>{_e(title)}: <span class="verdict {verdict[0]}">{verdict[1]}</span></h1>'
    yield _facts(_about(report))
    if report["checks"]:
        yield "<h2>Checks of the repository</h2>"
        yield _table(
            ("check", "outcome", "what was looked at", "took"),
            [(c["check"], "ok" if c["ok"] else "failed", c["details"], c["duration_ms"]) for c in report["checks"]],
        )
    for backup in report["backups"]:
        if backup["rehearsal"] is not None:
            yield from _backup(backup)
    yield from _others([backup for backup in report["backups"] if backup["rehearsal"] is None])
    if report["findings"]:
        yield f"<h2>Findings ({format_count(report['findings_in_all'])})</h2><table>"
        for one in report["findings"]:
            yield f"<tr><td>{_e(one['subject'])}</td><td>{_e(one['message'])}</td><td>{_e(one['hint'])}</td></tr>"
        yield "</table>"
    yield "<h2>Seal</h2>"
    yield _facts(_seal(evidence))
    yield f'<script type="application/json" id="evidence">{_embedded(evidence)}</script>'
    yield "</body></html>"


def _about(report: Document) -> list[tuple[str, str]]:
    scope = report["scope"]
    told = {
        "complete": "all data was read",
        "sampled": f"a random {scope['percent']} % of the data was read",
        "none": "no data was read: what is stored was looked at by name and size",
    }
    found = [
        ("begun, ended", f"{report['started']} to {report['finished']} ({_span(report['duration_ms'])})"),
        ("by", " on ".join(filter(None, (report["program"], report["host"])))),
        ("asked for by", report["actor"] or ""),
        ("policy, job", ", ".join(filter(None, (report["policy"], report["job"])))),
        ("repository", report["repository"]),
        ("extent", told[scope["data"]]),
    ]
    return [(name, value) for name, value in found if value]


def _backup(backup: Document) -> Iterator[str]:
    yield f"<h2>Backup {_e(backup['name'] or backup['id'])}</h2>"
    size = f"{format_count(backup['files'])} files, {format_size(backup['bytes'])}"
    done = backup["rehearsal"]
    facts = [
        ("id", backup["id"]),
        ("made", f"{backup['time']} on {backup['host']}, {backup['kind']}"),
        ("of", backup["source"]),
        ("holds", size),
        ("SHA-256", backup["sha256"]),
        (
            "restored",
            f"{format_count(done['files'])} files, {format_size(done['bytes'])}, {format_size(done['bytes_per_s'])}/s",
        ),
        ("usable again after", f"{_span(done['rto_ms'])} (recovery time, RTO)"),
    ]
    yield _facts(facts)
    yield _table(
        ("check", "outcome", "what was found", "took"),
        [(c["check"], c["status"], c["details"], c["duration_ms"]) for c in done["checks"]],
    )


def _others(backups: Sequence[Document]) -> Iterator[str]:
    """Those that were looked at where they are stored, and not restored."""
    if not backups:
        return
    yield f"<h2>Backups ({format_count(len(backups))})</h2>"
    yield "<table><thead><tr><th>id</th><th>name</th><th>made</th><th>SHA-256</th></tr></thead><tbody>"
    for one in backups:
        yield (
            f"<tr><td>{_e(one['id'])}</td><td>{_e(one['name'] or '')}</td><td>{_e(one['time'])}</td>"
            f'<td class="hash">{_e(one["sha256"])}</td></tr>'
        )
    yield "</tbody></table>"


def _seal(evidence: Evidence) -> list[tuple[str, str]]:
    signed = evidence.signature is not None
    return [
        ("SHA-256 of the report", evidence.sha256),
        ("signed by", f"the Ed25519 key {evidence.key}" if signed else "nobody"),
        ("to check", "backstay evidence check FILE, offline and without a repository"),
    ]


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    lines = "".join(f"<dt>{_e(name)}</dt><dd{_hash(value)}>{_e(value)}</dd>" for name, value in facts)
    return f"<dl>{lines}</dl>"


def _table(heads: Sequence[str], rows: Sequence[tuple[str, str, str, int]]) -> str:
    head = "".join(f"<th>{_e(name)}</th>" for name in heads)
    body = "".join(
        f'<tr><td>{_e(check)}</td><td class="{_e(status)}">{_WORDS[status]}</td>'
        f'<td>{_e(details)}</td><td class="number">{_span(took)}</td></tr>'
        for check, status, details, took in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _embedded(evidence: Evidence) -> str:
    """JSON that no HTML parser takes for markup: the signs that could begin any are written as escapes."""
    text = json.dumps(evidence.document(), ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _span(ms: int) -> str:
    if ms < 1000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    minutes, seconds = divmod(round(ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min {seconds} s" if hours else f"{minutes} min {seconds} s"


def _hash(value: str) -> str:
    return ' class="hash"' if re.search(r"[0-9a-f]{64}", value) else ""


def _e(value: Any) -> str:  # noqa: ANN401 - of JSON
    return escape(str(value), quote=True)
