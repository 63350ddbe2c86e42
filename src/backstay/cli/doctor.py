"""`doctor`: whether all is as it must be for backups, and what to do where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backstay.cli import checkup
from backstay.cli.catalogs import CatalogPlace, catalog_place
from backstay.cli.context import Context, context_of
from backstay.cli.extras import server_extra
from backstay.cli.options import flag, option
from backstay.cli.render import out
from backstay.cli.serving import DATA_DIR_HELP, DATABASE_HELP
from backstay.core.quantities import plural
from backstay.errors import CatalogUnavailable

if TYPE_CHECKING:
    from backstay.catalog.index import Refreshed

_SIGNS = {"good": "ok", "note": "note", "bad": "BAD"}


def doctor(
    ctx: typer.Context,
    rebuild_catalog: Annotated[
        bool, flag("Make the catalog's list of backups anew from the repository alone.", "--rebuild-catalog")
    ] = False,
    data_dir: Annotated[Path | None, option("DIR", DATA_DIR_HELP)] = None,
    database: Annotated[str | None, option("URL", DATABASE_HELP)] = None,
) -> int:
    """Look at the repository, its keys, the cache, the catalog, the audit log, clocks and disks; change nothing.

    The exit status is that of the first thing that is bad.
    """
    context = context_of(ctx)
    if rebuild_catalog:
        with server_extra("backstay doctor --rebuild-catalog"):
            return _rebuild(context, catalog_place(context, data_dir, database))
    found = list(checkup.checkup(context, lambda: catalog_place(context, data_dir, database)))
    bad = [check for check in found if check.state == "bad"]
    document = {
        "ok": not bad,
        "checks": [
            {"name": check.name, "state": check.state, "message": check.message, "hint": check.hint or None}
            for check in found
        ],
    }
    context.result(document, lambda: _show(found))
    return bad[0].status if bad else 0


def _rebuild(context: Context, place: CatalogPlace) -> int:
    """Make the tables if there are none, and the list of backups from the repository.

    Order: the tables in a transaction, then backups in batches: what an interruption leaves is a list without some
    backups, which the next refresh or rebuild completes.
    """
    from backstay.catalog.database import Catalog
    from backstay.catalog.index import BackupIndex

    policies = _policies_of_names(context)
    try:
        with context.open(index=False) as repository, Catalog.open(place.url) as catalog:
            catalog.migrate()
            done = BackupIndex(catalog, context.clock).rebuild(repository, policies=policies)
    except CatalogUnavailable as error:
        if place.file is None or not place.file.exists():
            raise
        raise CatalogUnavailable(
            error.title,
            cause=error.cause,
            hint=f"if {place.file} is damaged, move it and what begins like it away, and do this again",
        ) from error
    document = {"read": done.read, "added": done.added, "removed": done.removed, "damaged": done.damaged}
    context.result(document, lambda: _show_rebuilt(context, done))
    return 0


def _policies_of_names(context: Context) -> dict[str, str]:
    from backstay.control.runs.capturing import policies_of_snapshots

    return {} if context.policy_file() is None else policies_of_snapshots(context.policies())


def _show(found: list[checkup.Check]) -> None:
    width = max(len(check.name) for check in found)
    for check in found:
        out(f"{_SIGNS[check.state]:4}  {check.name.ljust(width)}  {check.message}")
        if check.state != "good" and check.hint:
            out(f"      {' ' * width}  what to do: {check.hint}")


def _show_rebuilt(context: Context, done: Refreshed) -> None:
    context.say(f"the catalog lists what the repository holds: {plural(done.read, 'snapshot')} read, {done.added} new")
    for ulid in done.damaged:
        context.warn(f"{ulid} cannot be read: `backstay verify` tells more")
