"""The address of a MySQL or MariaDB server, and how its programs are told it: secrets by their environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from backstay.errors import InvalidRequest

SCHEMES: Final = ("mysql", "mariadb")
DEFAULT_PORT: Final = 3306
_OPTIONS: Final = ("socket", "ssl-ca", "ssl-cert", "ssl-key")
_LOOKS_LIKE: Final = "it looks like mysql://user@host:port/database; other signs are written as %XX"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and who connects. What is empty is left to the option files of the programs."""

    user: str
    password: str | None = field(repr=False)
    host: str
    port: int | None
    database: str
    options: tuple[tuple[str, str], ...]

    @property
    def name(self) -> str:
        """The server, as paths and messages name it."""
        socket = dict(self.options).get("socket")
        return socket or f"{self.host or 'localhost'}:{self.port or DEFAULT_PORT}"

    @property
    def arguments(self) -> list[str]:
        """What connects any of the programs; free of secrets."""
        found = [f"--{name}={value}" for name, value in self.options]
        if self.host:
            found.append(f"--host={self.host}")
        if self.port is not None:
            found.append(f"--port={self.port}")
        if self._is_remote:  # else the programs take `localhost` for a socket, whatever port is asked for
            found.append("--protocol=tcp")
        if self.user:
            found.append(f"--user={self.user}")
        return found

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment of the programs; may not be shown to anybody."""
        child = {**environ, "LC_ALL": "C"}
        if self.password is not None:
            child["MYSQL_PWD"] = self.password
        return child

    @property
    def _is_remote(self) -> bool:
        return self.port is not None or self.host not in ("", "localhost")


def parse_address(url: str) -> Address:
    """The address that a URL means. Raises InvalidRequest, which cites nothing of it: it may hold a password."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidRequest(
            "the address of the database cannot be read",
            cause="the port is no number from 0 to 65535, or the host is not well-formed",
            hint=_LOOKS_LIKE,
        ) from None
    database = unquote(parts.path.removeprefix("/"))
    if parts.scheme not in SCHEMES or parts.fragment or "/" in database:
        raise InvalidRequest(
            "the address of the database cannot be read",
            cause="it has more parts than a server and a database",
            hint=_LOOKS_LIKE,
        )
    found = Address(
        user=unquote(parts.username or ""),
        password=unquote(parts.password) if parts.password is not None else None,
        host=unquote(parts.hostname or ""),
        port=port,
        database=database,
        options=_options(parts),
    )
    for text in (found.user, found.password or "", found.host, found.database, *(value for _, value in found.options)):
        if not text.isprintable():
            raise InvalidRequest(
                "the address of the database cannot be read", cause="it holds a control character", hint=_LOOKS_LIKE
            )
    return found


def _options(parts: SplitResult) -> tuple[tuple[str, str], ...]:
    given = parse_qsl(parts.query, keep_blank_values=True)
    for name, _ in given:
        if name not in _OPTIONS:
            raise InvalidRequest(
                f"{name[:40]} cannot stand in the address of a MySQL server",
                cause=f"an address may have {', '.join(_OPTIONS)}",
                hint="put other settings into the section [client] of ~/.my.cnf",
            )
    found = dict(given)
    if "socket" in found and parts.netloc.rpartition("@")[2]:
        raise InvalidRequest(
            "an address names a host or a socket, not both",
            cause="socket stands beside a host",
            hint="it looks like mysql://user@/database?socket=/run/mysqld/mysqld.sock",
        )
    return tuple(sorted(found.items()))
