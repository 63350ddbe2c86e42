"""The catalog for commands that look at it while the service runs or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from backstay.cli.context import Context
from backstay.cli.serving import options_of
from backstay.errors import NotFound

if TYPE_CHECKING:
    from backstay.catalog.database import Catalog


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogPlace:
    """Where a catalog is. `file` is that of SQLite, `key` and `checkpoints` lie beside it on this host."""

    url: str
    data_dir: Path

    @property
    def file(self) -> Path | None:
        return Path(unquote(self.url.removeprefix("sqlite:///"))) if self.url.startswith("sqlite:") else None

    @property
    def key(self) -> Path:
        return self.data_dir / "audit.key"

    @property
    def checkpoints(self) -> Path:
        return self.data_dir / "audit.checkpoints"

    @property
    def is_made(self) -> bool:
        """Whether there is one; what a server has is found out when it is asked."""
        return self.file is None or self.file.exists()


def catalog_place(context: Context, data_dir: Path | None, database: str | None) -> CatalogPlace:
    """The catalog that `serve` would use with the same options."""
    options = options_of(context, data_dir, database, (), alone=True)
    directory = options.data_dir.absolute()
    return CatalogPlace(url=options.catalog_url(directory), data_dir=directory)


def require_made(place: CatalogPlace) -> None:
    """Raises NotFound where no catalog is."""
    if not place.is_made:
        raise NotFound(
            "there is no catalog",
            cause=f"{place.file} does not exist",
            hint="`backstay serve` makes it; or name another with --data-dir or --database",
        )


@contextmanager
def opened_catalog(place: CatalogPlace) -> Iterator[Catalog]:
    """One that is there. Raises NotFound, CatalogOutdated, CatalogUnavailable."""
    from backstay.catalog.database import Catalog

    require_made(place)
    with Catalog.open(place.url) as catalog:
        catalog.require_current()
        yield catalog
