"""What the commands for users, tokens and agents share: the catalog of the service, opened by whoever owns it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from backstay.cli.catalogs import catalog_place, require_made
from backstay.cli.context import Context
from backstay.cli.extras import server_extra
from backstay.cli.options import option
from backstay.cli.serving import DATA_DIR_HELP, DATABASE_HELP
from backstay.core.environment import user

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from backstay.catalog.audit import AuditLog
    from backstay.catalog.database import Catalog
    from backstay.control.access.access import Access
    from backstay.control.access.principal import Principal

DataDir = Annotated[Path | None, option("DIR", DATA_DIR_HELP)]
Database = Annotated[str | None, option("URL", DATABASE_HELP)]


@dataclass(frozen=True, kw_only=True, slots=True)
class People:
    """Users and tokens of a catalog, and the owner of the machine, who may do everything with them."""

    catalog: Catalog
    access: Access
    audit: AuditLog
    by: Principal

    @contextmanager
    def changing(self, action: str, about: str, **details: Any) -> Iterator[Session]:  # noqa: ANN401 - any JSON
        """One transaction, with its line in the audit log: both are there or neither."""
        with self.catalog.session() as session:
            yield session
            self.audit.record(session, actor=self.by.name, action=action, object=about, details=details)


@contextmanager
def people(
    context: Context,
    data_dir: Path | None,
    database: str | None,
    *,
    command: str,
    agents: bool = False,
    begins: bool = False,
) -> Iterator[People]:
    """The users of a service, whether it runs or not. With `begins` a catalog that is not there is made, and told.

    Raises ServerExtraMissing, InvalidRequest, NotFound, CatalogUnavailable.
    """
    with server_extra(f"backstay {command}"):
        from backstay.catalog.audit import AuditLog
        from backstay.catalog.database import Catalog
        from backstay.control.access.access import Access
        from backstay.control.access.authority_file import open_authority
        from backstay.control.access.principal import the_machine
        from backstay.control.service.place import prepare

        place = catalog_place(context, data_dir, database)
        is_new = not place.is_made
        if not begins:
            require_made(place)
        directory = prepare(place.data_dir)
        with Catalog.open(place.url) as catalog:
            catalog.migrate()
            if is_new:
                context.warn(f"there was no catalog: {place.file} was made")
            yield People(
                catalog=catalog,
                access=Access(
                    catalog, context.clock, authority=open_authority(directory, context.clock) if agents else None
                ),
                audit=AuditLog(catalog, context.clock),
                by=the_machine(f"{user()} (command line)"),
            )
