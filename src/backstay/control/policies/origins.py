"""What a policy may back up: the types of sources with their fields."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import AfterValidator, Discriminator, Tag

from backstay.control.policies.values import Flag, Model, Text, WholePath, Wrong, several, told_words


def _plain_name(name: str) -> str:
    """A name that may stand in the name of a snapshot and of a file. Raises Wrong."""
    if len(name) > NAME_MOST or not all(c.isalnum() or c in "._-" for c in name) or not name[:1].isalnum():
        raise Wrong(
            f"{name!r} is no name", f"names have up to {NAME_MOST} letters, digits, `.`, `_` and `-`, a letter first"
        )
    return name


def postgres_address(address: str) -> str:
    """An address of PostgreSQL. Raises Wrong, which does not repeat it: it may hold a password."""
    if not address.startswith(("postgresql://", "postgres://")):
        raise Wrong("this is no address of PostgreSQL", "write postgresql://USER@HOST:PORT/DB")
    return address


def _mysql(address: str) -> str:
    if not address.startswith(("mysql://", "mariadb://")):
        raise Wrong("this is no address of MySQL or MariaDB", "write mysql://USER@HOST:PORT/DB")
    return address


def has_password(address: str) -> bool:
    """Whether an address of a database holds a password; one that cannot be read may."""
    try:
        parts = urlsplit(address)
        return parts.password is not None or any(key.lower() in _SECRETS for key, _ in parse_qsl(parts.query))
    except ValueError:
        return True


def reaches_beyond(address: str) -> bool:
    """Whether an address of PostgreSQL may make libpq write a file or load a library.

    `sslkeylogfile` appends to any file (libpq 18); a `sslkey` of the form ENGINE:KEY loads an engine of OpenSSL. All of
    the text is looked at, as libpq takes it apart otherwise than we do.
    """
    return _BEYOND.search(unquote(address).lower()) is not None


_BEYOND: Final = re.compile(r"sslkeylogfile|sslkey=[^&]*:")
_SECRETS: Final = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")
NAME_MOST: Final = 80
Name = Annotated[str, AfterValidator(_plain_name)]


class Origin(Model):
    """A source of a policy. Its snapshots are named as the policy, or `POLICY-NAME`."""

    name: Name | None = None

    def snapshot_name(self, policy: str) -> str:
        """What its snapshots are named, as a source of this policy: as the policy, or `POLICY-NAME`."""
        return policy if self.name is None else f"{policy}-{self.name}"


class FilesystemOrigin(Origin):
    """Files and directories."""

    type: Literal["filesystem"]
    paths: Annotated[tuple[WholePath, ...], several(1)]
    exclude: tuple[Text, ...] = ()
    exclude_from: tuple[WholePath, ...] = ()
    exclude_caches: Flag = False
    one_file_system: Flag = False


class PostgresqlOrigin(Origin):
    """A dump of a PostgreSQL database, or of some of its schemas."""

    type: Literal["postgresql"]
    connection: Annotated[str, AfterValidator(postgres_address)]
    schemas: tuple[Text, ...] = ()


class MysqlOrigin(Origin):
    """A dump of a MySQL or MariaDB server, or of one database."""

    type: Literal["mysql"]
    connection: Annotated[str, AfterValidator(_mysql)]


class SqliteOrigin(Origin):
    """A copy of a SQLite database, made while it is in use."""

    type: Literal["sqlite"]
    path: WholePath


class CommandOrigin(Origin):
    """What a program writes to its standard output, as a file."""

    type: Literal["command"]
    command: Annotated[tuple[Text, ...], several(1)]
    file_name: Name = "output"


TYPES: Final = ("filesystem", "postgresql", "mysql", "sqlite", "command")
DATABASES: Final = ("postgresql", "mysql", "sqlite")
ASKED: Final = ("postgresql", "sqlite")  # databases that rehearsals open and ask
TYPES_HINT: Final = f"types are {told_words(TYPES)}"


def _which(data: Any) -> str:  # noqa: ANN401 - whatever stands in the file
    kind = data.get("type") if isinstance(data, dict) else getattr(data, "type", None)
    return f"<{kind}>"


AnyOrigin: TypeAlias = Annotated[
    Annotated[FilesystemOrigin, Tag("<filesystem>")]
    | Annotated[PostgresqlOrigin, Tag("<postgresql>")]
    | Annotated[MysqlOrigin, Tag("<mysql>")]
    | Annotated[SqliteOrigin, Tag("<sqlite>")]
    | Annotated[CommandOrigin, Tag("<command>")],
    Discriminator(_which),
]


def distinct(origins: tuple[AnyOrigin, ...]) -> tuple[AnyOrigin, ...]:
    """The same sources, if their snapshots can be told apart. Raises Wrong."""
    names = [origin.name for origin in origins]
    for name in names:
        if names.count(name) > 1:
            told = "have no name" if name is None else f"are named {name!r}"
            raise Wrong(f"{names.count(name)} sources {told}", "give each but one a `name` of its own")
    return origins
