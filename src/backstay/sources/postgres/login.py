"""How programs of PostgreSQL are told where to connect: secrets by their environment, the rest by an argument."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backstay.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Login:
    """`conninfo` is free of secrets and may stand in a list of processes; `environ` may not be shown to anybody."""

    conninfo: str
    environ: Mapping[str, str]
    host: str
    port: str


def login(url: str, environ: Mapping[str, str], *, database: str) -> Login:
    """The login that a URL means which a Connection was made with, to `database`. Raises InvalidRequest."""
    from psycopg import conninfo, pq

    given = {key: str(value) for key, value in conninfo.conninfo_to_dict(url).items() if value is not None}
    given["dbname"] = database
    child = {**environ, "PGAPPNAME": "backstay", "LC_ALL": "C"}
    child.pop("PGCLIENTENCODING", None)  # dumps have the encoding of their database, which is told in them
    for option in pq.Conninfo.get_defaults():
        name = option.keyword.decode()
        if option.dispchar != b"*" or name not in given:
            continue
        if not option.envvar:
            raise InvalidRequest(
                f"{name} cannot stand in the address of a database to dump or restore",
                cause="its programs take it from their command line only, which others can see",
                hint="put it into a service file, and name that with service=",
            )
        child[option.envvar.decode()] = given.pop(name)
    host = given.get("host") or given.get("hostaddr") or environ.get("PGHOST") or "local"
    port = given.get("port") or environ.get("PGPORT") or "5432"
    return Login(conninfo.make_conninfo("", **given), child, host, port)
