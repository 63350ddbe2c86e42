"""Evidence: reports of verifications and rehearsals, as an auditor keeps them."""

from __future__ import annotations

from typing import Final

from fastapi import Response
from sqlalchemy import select

from backstay.api.answers import answer, page
from backstay.api.call import Caller
from backstay.api.endpoints import Section
from backstay.api.known import backup_meant, told_as
from backstay.api.models.backups import EvidenceDocument
from backstay.api.models.base import Ident, PageOf, PageQuery
from backstay.catalog.models import Evidence
from backstay.catalog.pages import Order, page_of
from backstay.control.access.scopes import EVERYTHING, policy_scope
from backstay.control.evidence.kept import evidence_of
from backstay.control.evidence.page import STYLE_SOURCE, as_html
from backstay.errors import NotFound

section = Section("evidence")
# As everywhere, but for the style that stands in the page.
_PAGE_POLICY: Final = (
    f"default-src 'none'; style-src {STYLE_SOURCE}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox"
)
_ORDER = Order(name="evidence", keys=(Evidence.created_at, Evidence.id))


@section.get("/api/backup/{backup}/evidence", needs="backup:read", answers=PageOf[EvidenceDocument], refuses=(404,))
def list_evidence(call: Caller, backup: Ident, asked: PageQuery) -> Response:
    """List the reports about a backup, the newest first."""
    found = backup_meant(call, backup)
    query = select(Evidence).where(Evidence.backup_id == found.id)
    with call.backing.catalog.reading() as session:
        rows = page_of(session, query, _ORDER, limit=asked.limit, cursor=asked.cursor)
    return page([_document(row) for row in rows.items], rows.next)


@section.get(
    "/api/evidence/{evidence}.html",
    needs="backup:read",
    answers={"type": "string"},
    media_type="text/html",
    refuses=(404,),
)
def show_evidence(call: Caller, evidence: Ident) -> Response:
    """Give one report as a page for people, the same that `backstay evidence export` writes.

    It prints on paper, runs and loads nothing, and `backstay evidence check` takes it. 422 if the report was changed in
    the catalog.
    """
    row = _meant(call, evidence)
    name = f'inline; filename="evidence-{row.id}.html"'
    headers = {"Content-Security-Policy": _PAGE_POLICY, "Content-Disposition": name}
    return Response(as_html(evidence_of(row)), headers=headers, media_type="text/html")


@section.get("/api/evidence/{evidence}", needs="backup:read", answers=EvidenceDocument, refuses=(404,))
def get_evidence(call: Caller, evidence: Ident) -> Response:
    """Give one report whole, with its digest."""
    row = _meant(call, evidence)
    document = _document(row)
    document["report"] = row.report
    return answer(document)


def _meant(call: Caller, evidence: str) -> Evidence:
    """The report of this id, if the caller may see its backup, and all others that it tells of.

    It is sealed, so that no part of it can be left out. Raises NotFound, Forbidden.
    """
    missing = NotFound(f"there is no report {evidence[:80]!r}", hint="`GET /api/backup/ID/evidence` lists them")
    with call.backing.catalog.reading() as session:
        row = session.get(Evidence, evidence)
    if row is None:
        raise missing
    with told_as(missing):
        backup_meant(call, row.backup_id)
    report = row.report["report"]
    if len(report["backups"]) > 1:
        policy = report["policy"]
        call.require(policy_scope(policy) if policy else EVERYTHING, seen="backup:read")
    return row


def _document(row: Evidence) -> EvidenceDocument:
    return EvidenceDocument(
        id=row.id,
        backup_id=row.backup_id,
        job_id=row.job_id,
        kind=row.kind,
        ok=row.ok,
        created_at=row.created_at,
        digest=row.digest,
    )
