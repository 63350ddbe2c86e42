"""What a backup is made of, in a program's own words: paths, a database, a command's output."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from pydantic import ValidationError

from backstay.control.policies.policy import Policy, Retention
from backstay.control.policies.values import Wrong
from backstay.core.arguments import checks_arguments
from backstay.core.environment import expanded
from backstay.errors import InvalidRequest
from backstay.operations.backup.request import BackupKind, check_name
from backstay.sources.sqlite.database import path_of

_MYSQL: Final = ("mysql://", "mariadb://")
_POSTGRES: Final = ("postgresql://", "postgres://")
_SQLITE: Final = "sqlite:"


@checks_arguments
@dataclass(frozen=True, slots=True, kw_only=True)
class FileSource:
    """Files and directories; a relative path begins in the current directory."""

    paths: Sequence[str | Path]
    exclude: Sequence[str] = ()
    exclude_caches: bool = False
    one_file_system: bool = False
    name: str | None = None


@checks_arguments
@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSource:
    """A database by its address: `postgresql://…`, `mysql://…` or `sqlite:///path`."""

    connection: str = field(repr=False)  # it may hold a password
    schemas: Sequence[str] = ()
    name: str | None = None


@checks_arguments
@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSource:
    """What a program writes to its standard output, as a file of this name."""

    command: Sequence[str]
    file_name: str = "output"
    name: str | None = None


BackupSource: TypeAlias = FileSource | DatabaseSource | CommandSource


@checks_arguments
@dataclass(frozen=True, slots=True, kw_only=True)
class BackupRequest:
    """A backup that stands in no policy file: what a policy says, in a program's own words.

    Its snapshots are named `name`, or `name-SOURCE` where there are several sources; a source without a name of its
    own is called `files`, `database` or `command`.
    """

    name: str
    sources: Sequence[BackupSource | str | Path]
    description: str = ""
    tags: Sequence[str] = ()
    kind: BackupKind = "incremental"
    retention: Retention | None = None

    def policy(self) -> Policy:
        """The same as a policy. Raises InvalidRequest."""
        check_name(self.name)
        return policy_of(self)


def is_database(address: str) -> bool:
    """Whether a text is the address of a database."""
    return address.startswith((*_POSTGRES, *_MYSQL, _SQLITE))


def policy_of(request: BackupRequest) -> Policy:
    """The policy that a request is. Raises InvalidRequest for what none can be."""
    named = _named(_joined(request.sources))
    try:
        return Policy.model_validate(
            {
                "description": request.description,
                "tags": tuple(request.tags),
                "sources": tuple(_origin(source) | {"name": name} for source, name in named),
                "retention": request.retention,
            }
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        wrong = first.get("ctx", {}).get("error")
        where = ".".join(str(part) for part in first["loc"] if not str(part).startswith("<"))
        raise InvalidRequest(
            f"the backup {request.name!r} cannot be made",
            cause=f"{where}: {wrong if isinstance(wrong, Wrong) else first['msg']}",
            hint=getattr(wrong, "hint", "") or "docs/policies.md says what each kind of source takes",
        ) from error


def _joined(sources: Sequence[BackupSource | str | Path]) -> list[BackupSource]:
    """The sources, with all bare paths as one."""
    found: list[BackupSource] = []
    paths: list[str | Path] = []
    for source in sources:
        if isinstance(source, (FileSource, DatabaseSource, CommandSource)):
            found.append(source)
        elif isinstance(source, str) and is_database(source):
            found.append(DatabaseSource(connection=source))
        else:
            paths.append(source)
    return found if not paths else [FileSource(paths=paths), *found]


def _named(sources: list[BackupSource]) -> list[tuple[BackupSource, str | None]]:
    """Each source with its name; the only one needs none."""
    if len(sources) == 1:
        return [(sources[0], sources[0].name)]
    taken = {source.name for source in sources}
    found: list[tuple[BackupSource, str | None]] = []
    for source in sources:
        name = source.name
        if name is None:
            word = _word(source)
            name = next(one for one in (word, *(f"{word}{n}" for n in range(2, len(sources) + 2))) if one not in taken)
            taken.add(name)
        found.append((source, name))
    return found


def _word(source: BackupSource) -> str:
    if isinstance(source, FileSource):
        return "files"
    return "database" if isinstance(source, DatabaseSource) else "command"


def _origin(source: BackupSource) -> dict[str, Any]:
    if isinstance(source, FileSource):
        return {
            "type": "filesystem",
            "paths": tuple(map(_whole, source.paths)),
            "exclude": tuple(source.exclude),
            "exclude_caches": source.exclude_caches,
            "one_file_system": source.one_file_system,
        }
    if isinstance(source, CommandSource):
        return {"type": "command", "command": tuple(source.command), "file_name": source.file_name}
    return _database(source)


def _whole(path: str | Path) -> str:
    """A path from the root. Raises InvalidRequest for an empty one, which would mean whatever directory is current."""
    if not os.fspath(path):
        raise InvalidRequest(
            "it is not clear what to back up", cause="a path is empty", hint="name the current directory as `.`"
        )
    return os.path.abspath(expanded(Path(path)))  # noqa: PTH100 - `..`


def _database(source: DatabaseSource) -> dict[str, Any]:
    address = source.connection
    if address.startswith(_POSTGRES):
        return {"type": "postgresql", "connection": address, "schemas": tuple(source.schemas)}
    if source.schemas:
        raise InvalidRequest("only PostgreSQL has schemas", cause=f"the source is {address.partition(':')[0]}")
    if address.startswith(_MYSQL):
        return {"type": "mysql", "connection": address}
    if address.startswith(_SQLITE):
        return {"type": "sqlite", "path": os.fsdecode(path_of(address))}
    raise InvalidRequest(
        "the address names no database that can be backed up",
        cause=f"it begins with {address.partition(':')[0]}:",
        hint="write postgresql://USER@HOST:PORT/DB, mysql://USER@HOST:PORT/DB or sqlite:///PATH",
    )
