"""Addresses of databases in one strict form, so that nobody reads another server out of one than we do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from backstay.errors import InvalidRequest

MOST_PORT: Final = 65535
_FORM: Final = re.compile(
    r"(?P<scheme>postgres|postgresql|mysql|mariadb)://"
    r"((?P<user>[^:@/?#\[\],]*)(?P<password>:[^@/?#]*)?@)?"
    r"(?P<host>[^:@/?#\[\],]*|\[[0-9A-Fa-f:.]+\])(:(?P<port>[0-9]{1,5}))?"
    r"(/(?P<database>[^:@/?#\[\],]*))?(\?(?P<parameters>[^#]*))?"
)
_PORTS: Final = {"postgresql": 5432, "mysql": 3306}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseAddress:
    """A database of a server; what is empty is not said."""

    kind: str
    host: str
    port: int
    user: str
    database: str

    def admits(self, other: DatabaseAddress) -> bool:
        """Whether another address is within this one, where what this one does not say may be anything."""
        return (
            (self.kind, self.host, self.port) == (other.kind, other.host, other.port)
            and self.user in ("", other.user)
            and self.database in ("", other.database)
        )


def parse_database(text: str) -> DatabaseAddress:
    """The database that an address names. Raises InvalidRequest, which cites nothing of it."""
    found = _FORM.fullmatch(text)
    if found is None or int(found["port"] or 0) > MOST_PORT:
        raise unreadable()
    parts = {name: unquote(value or "") for name, value in found.groupdict().items()}
    if not all(parts[name].isprintable() and "=" not in parts[name] for name in ("host", "user", "database")):
        raise unreadable()  # libpq may take a name with `=` for settings of a connection
    kind = "postgresql" if parts["scheme"].startswith("postgres") else "mysql"
    port = int(parts["port"] or _PORTS[kind])
    return DatabaseAddress(
        kind=kind, host=parts["host"].lower(), port=port, user=parts["user"], database=parts["database"]
    )


def parse_allowed(text: str) -> DatabaseAddress:
    """A database, or a whole server, that restores may go to. Raises InvalidRequest, for parameters as well."""
    if "?" in text:
        raise InvalidRequest(
            "--restore-database takes an address without parameters",
            cause="what it says would not hold for the addresses that are asked for",
            hint="leave them out, and set PGSSLMODE and its kin in the environment of the service",
        )
    return parse_database(text)


def unreadable() -> InvalidRequest:
    """What is said of an address that cannot be read; it cites nothing of it: it may hold a password."""
    return InvalidRequest(
        "the address of the database cannot be read",
        cause="it is not of the form postgresql://USER@HOST:PORT/DATABASE",
        hint="write it so, other signs as %XX; mysql:// has the same form",
    )
