"""`evidence`: reports of verifications, checked, listed and exported; and those that `verify` writes."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backstay.cli.catalogs import catalog_place, opened_catalog
from backstay.cli.context import Context, context_of
from backstay.cli.extras import server_extra
from backstay.cli.options import argument, option
from backstay.cli.render import out
from backstay.cli.serving import DATA_DIR_HELP, DATABASE_HELP
from backstay.core.ids import is_digest, new_ulid
from backstay.core.quantities import plural
from backstay.errors import InvalidRequest

if TYPE_CHECKING:
    from backstay.control.evidence.files import Checked
    from backstay.operations.verify.run import VerifyOptions, VerifyReport
    from backstay.operations.verify.trial import Trial
    from backstay.repository.repository import Repository
    from backstay.trust.signing import Signer

_MAX_KEY_FILE = 64 << 10  # bytes

DataDir = Annotated[Path | None, option("DIR", DATA_DIR_HELP)]
Database = Annotated[str | None, option("URL", DATABASE_HELP)]


def check(
    ctx: typer.Context,
    file: Annotated[Path, argument("FILE", "What `verify --evidence` wrote.")],
    key: Annotated[
        list[str] | None, option("HEX", "A public key that may have signed; repeatable. Without it: any, or none.")
    ] = None,
) -> int:
    """Check evidence offline: that nothing in it was changed, and who signed it."""
    from backstay.control.evidence.files import check as checked

    for one in key or ():
        if not is_digest(one):
            raise InvalidRequest(
                f"{one[:80]!r} is no public key",
                cause="it is 64 hexadecimal digits, in lower case",
                hint="`backstay graph validator` prints it when the key is made",
            )
    context = context_of(ctx)
    found = checked(file, trusted=None if not key else frozenset(key))
    context.result(_document(found), lambda: _show(context, found, pinned=bool(key)))
    return 0


def list_kept(
    ctx: typer.Context,
    backup: Annotated[str | None, argument("BACKUP", "Only those about this backup, by its id.")] = None,
    limit: Annotated[int, option("N", "So many, the newest first.", min=1, max=100_000, show_default=True)] = 50,
    data_dir: DataDir = None,
    database: Database = None,
) -> int:
    """List the reports that the service has kept."""
    context = context_of(ctx)
    with server_extra("backstay evidence"):
        from backstay.control.evidence.kept import newest

        with opened_catalog(catalog_place(context, data_dir, database)) as catalog, catalog.reading() as session:
            rows = [
                {
                    "id": row.id,
                    "backup": row.backup_id,
                    "kind": row.kind,
                    "ok": row.ok,
                    "created_at": row.created_at,
                    "sha256": row.digest,
                }
                for row in newest(session, backup=backup, limit=limit)
            ]

    def show() -> None:
        for row in rows:
            outcome = "passed" if row["ok"] else "FAILED"
            out(f"{row['id']}  {row['created_at']:%Y-%m-%d %H:%M}  {row['kind']:<12} {outcome}  {row['backup']}")

    context.result(rows, show)
    return 0


def export(
    ctx: typer.Context,
    ident: Annotated[str, argument("ID", "The beginning of a report's id.")],
    file: Annotated[Path, argument("FILE", "Where to: FILE.html or FILE.json.")],
    data_dir: DataDir = None,
    database: Database = None,
) -> int:
    """Write a report that the service has kept, after it was checked."""
    context = context_of(ctx)
    with server_extra("backstay evidence"):
        from backstay.control.evidence.files import require_form
        from backstay.control.evidence.files import write as write_file
        from backstay.control.evidence.kept import evidence_of, found

        require_form(file)
        with opened_catalog(catalog_place(context, data_dir, database)) as catalog, catalog.reading() as session:
            evidence = evidence_of(found(session, ident))
        write_file(evidence, file)
    document = {"file": file, "id": evidence.report["id"], "sha256": evidence.sha256}
    context.result(document, lambda: context.say(f"evidence: {file}, SHA-256 {evidence.sha256}"))
    return 0


def trial_of(
    context: Context, *, sql: Sequence[str], commands: Sequence[str], server: str | None, rehearse: Path | None
) -> Trial | None:
    """What a rehearsal asks besides; None when nothing. Raises InvalidRequest without a rehearsal."""
    if not (sql or commands or server is not None):
        return None
    if rehearse is None:
        raise InvalidRequest(
            "--sql, --command and --server go with --rehearse",
            cause="they ask about what was restored",
            hint="add --rehearse DIR",
        )
    from backstay.control.runs.hooks import without_secrets
    from backstay.operations.verify.trial import Question, Trial, TriedCommand

    return Trial(
        questions=tuple(Question(sql=text) for text in sql),
        commands=tuple(TriedCommand(words=("sh", "-c", text)) for text in commands),
        server=server,
        environ=without_secrets(context.environ),
    )


def signer_of(key_file: Path | None, files: Sequence[Path]) -> Signer | None:
    """Who signs, looked up with the files' names before the work begins. Raises InvalidRequest."""
    if files:
        from backstay.control.evidence.files import require_form

        for one in files:
            require_form(one)
    if key_file is None:
        return None
    if not files:
        raise InvalidRequest(
            "--evidence-key goes with --evidence", cause="it signs what that writes", hint="add --evidence FILE"
        )
    from backstay.trust.validators import Validator

    try:
        with key_file.open("rb") as file:
            text = file.read(_MAX_KEY_FILE).decode("utf-8", "replace")
    except OSError as error:
        raise InvalidRequest(
            f"{key_file} cannot be read",
            cause=(error.strerror or str(error)).lower(),
            hint="`backstay graph validator` makes a key file",
        ) from error
    return Validator.parse(text).signer


def write(
    repository: Repository,
    files: Sequence[Path],
    signer: Signer | None,
    options: VerifyOptions,
    report: VerifyReport,
    *,
    wanted: Sequence[str] | None,
    began: datetime,
) -> str:
    """Write what was found, once for each file; the SHA-256 of the report."""
    from backstay.control.evidence.files import write as write_file
    from backstay.control.evidence.report import Occasion, report_of
    from backstay.control.evidence.seal import seal

    clock = repository.clock
    occasion = Occasion(
        id=new_ulid(clock.now_ns(), repository.environment.random),
        host=socket.gethostname(),
        started=began,
        finished=clock.now(),
    )
    manifests = [one for one in repository.snapshots.live(_passed_over) if wanted is None or one.id in wanted]
    evidence = seal(report_of(repository, manifests, options, report, occasion), signer)
    for file in files:
        write_file(evidence, file)
    return evidence.sha256


def _passed_over(ulid: str, error: Exception) -> None:
    """A snapshot that cannot be read is one of the findings."""


def _document(found: Checked) -> dict[str, object]:
    report = found.evidence.report
    return {
        "genuine": True,
        "ok": report["ok"],
        "kind": report["kind"],
        "id": report["id"],
        "finished": report["finished"],
        "backups": [backup["id"] for backup in report["backups"]],
        "sha256": found.evidence.sha256,
        "signed_by": found.evidence.key,
        "page_matches": found.page_matches,
    }


def _show(context: Context, found: Checked, *, pinned: bool) -> None:
    evidence, report = found.evidence, found.evidence.report
    context.say(f"unchanged since it was sealed, SHA-256 {evidence.sha256}")
    if evidence.key is None:
        context.warn("nobody signed it: whoever can write the file can make another one")
    else:
        context.say(f"signed by {evidence.key}" + ("" if pinned else " (say with --key whom you trust)"))
    if found.page_matches is False:
        context.warn("another version made the page: only the report in it was checked, not the text that is shown")
    outcome = "passed" if report["ok"] else "FAILED"
    about = plural(len(report["backups"]), "backup")
    context.say(f"it says: {report['kind']} of {about} {outcome}, ended {report['finished']} on {report['host']}")
