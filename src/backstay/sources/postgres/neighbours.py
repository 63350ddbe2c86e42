"""PostgreSQL servers that run on this machine: which data directories and tablespaces they use right now."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

TABLESPACE_LINKS: Final = "pg_tblspc"
_VERSION: Final = "PG_VERSION"


def tablespaces_of(data: Path) -> Iterator[tuple[str, Path]]:
    """The tablespaces of a data directory outside of it, as (oid, where its link leads). Raises OSError."""
    links = data / TABLESPACE_LINKS
    for link in sorted(links.iterdir()) if links.is_dir() else ():
        if link.is_symlink():
            yield link.name, links / link.readlink()


def user_of(place: Path, proc: Path = Path("/proc")) -> Path | None:
    """The data directory of a running server that has a tablespace in a place; None if none is known to.

    Every process of a server works in its data directory. Those of other users are seen by root alone.
    """
    real = os.path.realpath(place)
    seen: set[str] = set()
    for process in proc.iterdir():
        if not process.name.isdecimal():
            continue
        try:
            data = str((process / "cwd").readlink())
            if data in seen or not (Path(data) / _VERSION).is_file():
                continue
            seen.add(data)
            if any(os.path.realpath(leads) == real for _, leads in tablespaces_of(Path(data))):
                return Path(data)
        except OSError:
            continue  # the process has ended, or belongs to somebody else
    return None
