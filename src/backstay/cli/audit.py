"""`audit`: what was done and refused, and whether the log of it is whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from backstay.cli import jsonout
from backstay.cli.catalogs import CatalogPlace, catalog_place, opened_catalog
from backstay.cli.context import context_of
from backstay.cli.extras import server_extra
from backstay.cli.moments import zoned_moment
from backstay.cli.options import option
from backstay.cli.render import local_time, out, print_table
from backstay.cli.serving import DATA_DIR_HELP, DATABASE_HELP
from backstay.core.quantities import plural
from backstay.errors import CorruptedBackup, InvalidRequest

if TYPE_CHECKING:
    from backstay.catalog.audit_verifying import AuditVerdict
    from backstay.catalog.checkpoints import Checkpoint
    from backstay.catalog.models import AuditEntry

_PUBLIC_KEY = re.compile("[0-9a-f]{64}")
_PAGE = 1000
_ADVICE = "keep the database as it is, find out who can write to it, and compare with a copy of it"

DataDir = Annotated[Path | None, option("DIR", DATA_DIR_HELP)]
Database = Annotated[str | None, option("URL", DATABASE_HELP)]


def audit_verify(
    ctx: typer.Context,
    checkpoint: Annotated[
        list[Path] | None,
        option("FILE", "A checkpoint that was kept: its entry must be there as it was; repeatable."),
    ] = None,
    key: Annotated[
        list[str] | None,
        option("HEX", "Who may have signed checkpoints; repeatable. Else the key in the data directory."),
    ] = None,
    data_dir: DataDir = None,
    database: Database = None,
) -> int:
    """Check that no entry of the audit log was changed, removed or put in. Ends with 13 when one was.

    The catalog's own checkpoints are checked, those in the data directory, and those that are named.
    """
    context = context_of(ctx)
    with server_extra("backstay audit"):
        from backstay.catalog.audit import AuditLog

        place = catalog_place(context, data_dir, database)
        kept = [*_of_data_directory(place), *(found for file in checkpoint or () for found in _kept(file))]
        with opened_catalog(place) as catalog:
            verdict = AuditLog(catalog, context.clock).verify(kept=kept, trusted=_trusted(place, key))
    document = {
        "ok": verdict.ok,
        "entries": verdict.entries,
        "head": verdict.head,
        "checkpoints": verdict.checkpoints,
        "keys": verdict.keys,
        "first_bad": verdict.broken,
        "problem": verdict.problem or None,
    }
    context.result(document, lambda: _show_verdict(verdict))
    return 0 if verdict.ok else CorruptedBackup.exit_status


def audit_list(
    ctx: typer.Context,
    actor: Annotated[str | None, option("NAME", "Only what this user did.")] = None,
    action: Annotated[str | None, option("ACTION", "Only these, such as backup.create.")] = None,
    object_: Annotated[str | None, option("TEXT", "Only what begins so, such as /policy/shop.", "--object")] = None,
    outcome: Annotated[Literal["allow", "deny", "error"] | None, option("OUTCOME", "allow, deny or error.")] = None,
    since: Annotated[str | None, option("TIME", "Not older than this, such as 2026-01-31T12:00Z or '7d ago'.")] = None,
    limit: Annotated[int, option("N", "So many, the newest first.", min=1, max=100_000, show_default=True)] = 50,
    data_dir: DataDir = None,
    database: Database = None,
) -> int:
    """List what was done and what was refused, newest first."""
    context = context_of(ctx)
    with server_extra("backstay audit"):
        from backstay.catalog.audit import AuditFilters, AuditLog

        filters = AuditFilters(
            actor=actor,
            action=action,
            object=object_,
            outcome=outcome,
            since=None if since is None else zoned_moment(context, since),
        )
        entries: list[AuditEntry] = []
        with opened_catalog(catalog_place(context, data_dir, database)) as catalog:
            log, cursor = AuditLog(catalog, context.clock), None
            while len(entries) < limit:
                page = log.page(filters, min(_PAGE, limit - len(entries)), cursor)
                entries += page.items
                if (cursor := page.next) is None:
                    break

    def show() -> None:
        rows = [
            (str(one.seq), local_time(one.time), one.actor, one.action, one.object, one.outcome, one.reason)
            for one in entries
        ]
        columns = (">No.", "Time", "Who", "Did", "To", "Outcome", "Why")
        print_table(columns, rows, context.environ)

    context.result([_document(entry) for entry in entries], show)
    return 0


def audit_checkpoint(ctx: typer.Context, data_dir: DataDir = None, database: Database = None) -> int:
    """Sign the end of the audit log as it is, and print that as JSON: keep it where nobody who can write to the
    database can.

    The service does so each hour, into the catalog and into `audit.checkpoints` of its data directory.
    """
    context = context_of(ctx)
    with server_extra("backstay audit"):
        from backstay.catalog.audit import AuditLog
        from backstay.catalog.checkpoints import CheckpointFile, audit_signer, stored_checkpoints

        place = catalog_place(context, data_dir, database)
        with opened_catalog(place) as catalog:
            made = AuditLog(catalog, context.clock).checkpoint(audit_signer(place.key))
            if made is not None:
                CheckpointFile(place.checkpoints).append(made)
            with catalog.reading() as session:
                newest = made or next(reversed(stored_checkpoints(session)), None)
    if newest is None:
        raise InvalidRequest("there is nothing to sign", cause="the audit log has no entries yet", hint="wait for some")
    out(jsonout.line(newest.as_document()).rstrip("\n"))
    return 0


def _of_data_directory(place: CatalogPlace) -> list[Checkpoint]:
    from backstay.catalog.checkpoints import CheckpointFile

    return CheckpointFile(place.checkpoints).read()


def _kept(file: Path) -> list[Checkpoint]:
    """The checkpoints of a file, each on a line."""
    from backstay.catalog.checkpoints import Checkpoint

    try:
        lines = [line for line in file.read_text(errors="replace").splitlines() if line.strip()]
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read", cause=error.strerror or "", hint="give another file") from error
    if not lines:
        raise InvalidRequest(f"{file} holds no checkpoint", cause="it is empty", hint="give another file")
    return [Checkpoint.of_text(line, where=str(file)) for line in lines]


def _trusted(place: CatalogPlace, given: list[str] | None) -> list[str] | None:
    """The keys that may have signed: those named, else that of the one service which has a catalog of SQLite."""
    from backstay.catalog.checkpoints import trusted_keys

    for key in given or ():
        if not _PUBLIC_KEY.fullmatch(key):
            hint = "`backstay --json audit verify` shows those that signed"
            raise InvalidRequest(f"{key!r} is no public key", cause="it has not 64 hexadecimal digits", hint=hint)
    return given or trusted_keys(place.key, alone=place.file is not None)


def _show_verdict(verdict: AuditVerdict) -> None:
    if verdict.ok:
        agree = f", and {plural(verdict.checkpoints, 'checkpoint')} agree" if verdict.checkpoints else ""
        out(f"the audit log is whole: {plural(verdict.entries, 'entry', 'entries')}{agree}")
        return
    out(f"the audit log is broken at entry {verdict.broken}: {verdict.problem}")
    out(f"  good before: {plural(verdict.entries, 'entry', 'entries')}")
    out(f"  what to do:  {_ADVICE}")


def _document(entry: AuditEntry) -> dict[str, Any]:
    names = ("seq", "time", "actor", "actor_details", "action", "object", "outcome", "reason", "details", "hash")
    return {name: getattr(entry, name) for name in names}
