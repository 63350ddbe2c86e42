"""Which databases a restore may go to: the service sends its own passwords to whatever server it is led to.

Allowed are the databases of the policies that run here, for those who may restore these in place, and what whoever runs
the service names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import parse_qsl

from backstay.api.call import Call
from backstay.api.database_addresses import DatabaseAddress, parse_database
from backstay.control.access.scopes import source_scope
from backstay.control.policies.origins import MysqlOrigin, PostgresqlOrigin
from backstay.errors import InvalidRequest

# None of those that say how well the line is protected: that is for the policy, or for PGSSLMODE of the service.
_HARMLESS: Final = frozenset({"application_name", "connect_timeout"})
_HINT: Final = "take the database of a source, or let who runs the service start it with `--restore-database ADDRESS`"


def require_database(call: Call, address: str) -> None:
    """See that a restore may go to this database of a server. Raises InvalidRequest."""
    sources = list(_of_sources(call))
    if address in sources:
        return
    wanted = parse_database(address)
    _require_harmless(wanted.kind, address)
    if wanted in (found for found in map(_parsed, sources) if found is not None):
        return
    if not any(allowed.admits(wanted) for allowed in call.backing.options.restore_databases):
        raise InvalidRequest(
            "nothing is restored there",
            cause="this database belongs to no source that you may restore in place, and the service allows no other",
            hint=_HINT,
        )


def _of_sources(call: Call) -> Iterator[str]:
    """The addresses of the databases that are backed up here, and that the caller may restore in place."""
    loaded = call.backing.policies
    for name, policy in loaded.content.policies.items() if loaded is not None else ():
        for origin in policy.sources if policy.agent is None else ():
            scope = source_scope(name, origin.snapshot_name(name))
            if isinstance(origin, PostgresqlOrigin | MysqlOrigin) and call.principal.may("restore:in_place", scope):
                yield origin.connection


def _parsed(address: str) -> DatabaseAddress | None:
    """The database of a source; None where the address has another form, or says with parameters where it is."""
    try:
        found = parse_database(address)
        _require_harmless(found.kind, address)
    except InvalidRequest:
        return None
    return found


def _require_harmless(kind: str, address: str) -> None:
    """See that the parameters of an address lead to no other server and to no file. Raises InvalidRequest."""
    allowed = _HARMLESS if kind == "postgresql" else frozenset[str]()
    given = [name for name, _ in parse_qsl(address.partition("?")[2], keep_blank_values=True)]
    for name in given:
        if name not in allowed:
            raise InvalidRequest(
                f"{name[:40]!r} cannot stand in the address of a database here",
                cause="an address may have " + ", ".join(sorted(allowed)) if allowed else "it has no parameters here",
                hint="name a source's database as its policy does, or keep it on the host of the service",
            )
