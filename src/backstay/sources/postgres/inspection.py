"""What a server says of itself, as far as receivers and base backups rely on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from backstay.sources.postgres.connection import Connection
from backstay.sources.postgres.receiver import Slot, read_slot

_SETTINGS: Final = "SELECT name, setting, pending_restart FROM pg_settings"
_ROLES: Final = "SELECT rolname, rolsuper OR rolreplication, rolcanlogin FROM pg_roles"


@dataclass(frozen=True, slots=True)
class Role:
    """Whether a role may replicate, and log in."""

    may_replicate: bool
    may_log_in: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """Settings in the units of pg_settings; `pending` are those that a restart would change.

    `address` is that of this machine as the server sees it, None over a socket of its own machine. `senders` and
    `slots` are those in use.
    """

    place: str
    version: int
    user: str
    address: str | None
    settings: Mapping[str, str]
    pending: frozenset[str]
    role: Role | None
    senders: int
    slots: int
    slot: Slot | None
    is_standby: bool

    def number(self, setting: str) -> int:
        return int(self.settings[setting])

    def is_on(self, setting: str) -> bool:
        return self.settings[setting] == "on"


def inspect(url: str, slot: str, role: str | None) -> ServerFacts:
    """Look at a server, at one of its slots and at a role, that of `url` if None.

    Raises SourceUnreachable, SourceRefused and their kin, InvalidRequest.
    """
    with Connection(url, application="backstay setup") as plain:
        settings = plain.query(_SETTINGS)
        user = plain.value("SELECT current_user")
        found = {row[0]: Role(row[1] == "t", row[2] == "t") for row in plain.query(_ROLES)}
        return ServerFacts(
            place=plain.place,
            version=plain.version,
            user=user,
            address=plain.value("SELECT host(inet_client_addr())") or None,
            settings={name or "": value or "" for name, value, _ in settings},
            pending=frozenset(name or "" for name, _, pending in settings if pending == "t"),
            role=found.get(role or user),
            senders=int(plain.value("SELECT count(*) FROM pg_stat_replication")),
            slots=int(plain.value("SELECT count(*) FROM pg_replication_slots")),
            slot=read_slot(plain, slot),
            is_standby=plain.value("SELECT pg_is_in_recovery()") == "t",
        )
