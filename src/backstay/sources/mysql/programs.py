"""The client programs of MariaDB and MySQL on this machine: which of them fits a server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backstay.errors import VersionUnsupported

_CLIENTS: Final = ("mariadb", "mysql")
_DUMPERS: Final = ("mariadb-dump", "mysqldump")
_LOG_READERS: Final = ("mariadb-binlog", "mysqlbinlog")
_MARIADB_VERSION: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)-MariaDB")
_MYSQL_VERSION: Final = re.compile(r"Ver (\d+)\.(\d+)\.(\d+)")
_PATIENCE_S: Final = 20
_HINT: Final = "install {package}, and put its programs into PATH"


@dataclass(frozen=True, slots=True)
class Program:
    """One program of MariaDB or MySQL; `version` is empty if it does not tell one."""

    path: str
    is_mariadb: bool
    version: tuple[int, ...]


def client(environ: Mapping[str, str], *, mariadb: bool | None = None) -> Program:
    """The program that runs SQL; of the kind of the server, if there is one. Raises VersionUnsupported."""
    found = _all(_CLIENTS, environ)
    if not found:
        raise VersionUnsupported(
            "MySQL and MariaDB need the programs of one of them",
            cause=f"neither {' nor '.join(_CLIENTS)} is in PATH",
            hint=_HINT.format(package="mariadb-client or mysql-client"),
        )
    return next((program for program in found if program.is_mariadb is mariadb), found[0])


def dumper(environ: Mapping[str, str], *, mariadb: bool) -> Program:
    """The program that dumps: each of the two asks its own server for what the other does not know.

    Raises VersionUnsupported.
    """
    found = _all(_DUMPERS, environ)
    fitting = [program for program in found if program.is_mariadb is mariadb]
    if fitting:
        return fitting[0]
    server, other = ("MariaDB", "MySQL") if mariadb else ("MySQL", "MariaDB")
    package = "mariadb-client" if mariadb else "mysql-client"
    raise VersionUnsupported(
        f"dumping {server} takes {_DUMPERS[0] if mariadb else _DUMPERS[1]}",
        cause=f"{found[0].path} is that of {other}" if found else f"neither {' nor '.join(_DUMPERS)} is in PATH",
        hint=_HINT.format(package=package),
    )


def log_reader(environ: Mapping[str, str], *, mariadb: bool) -> str:
    """The path of the program that fetches a binary log and makes statements of it. Raises VersionUnsupported.

    Its version does not tell whose it is, but its name does: MariaDB has a link under the name of MySQL's.
    """
    search = environ.get("PATH", os.defpath)
    found = [path for name in _LOG_READERS if (path := shutil.which(name, path=search)) is not None]
    wanted = _LOG_READERS[0 if mariadb else 1]
    for path in found:
        if Path(path).resolve().name == wanted:
            return path
    raise VersionUnsupported(
        f"the binary log of {'MariaDB' if mariadb else 'MySQL'} takes {wanted}",
        cause=f"{found[0]} is that of another server" if found else f"{wanted} is not in PATH",
        hint=_HINT.format(package="mariadb-client" if mariadb else "mysql-client or mysql-server"),
    )


def _all(names: Sequence[str], environ: Mapping[str, str]) -> list[Program]:
    search = environ.get("PATH", os.defpath)
    paths = (shutil.which(name, path=search) for name in names)
    return [program for path in paths if path is not None and (program := _program(path)) is not None]


def _program(path: str) -> Program | None:
    """What a program tells of itself; None for one that does not work."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, timeout=_PATIENCE_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    told = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        return None
    is_mariadb = "MariaDB" in told
    version = (_MARIADB_VERSION if is_mariadb else _MYSQL_VERSION).search(told)
    return Program(path, is_mariadb, tuple(map(int, version.groups())) if version else ())
