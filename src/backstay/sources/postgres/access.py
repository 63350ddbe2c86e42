"""What lets a role into a server: commands for roles, and lines of pg_hba.conf."""

from __future__ import annotations

import re
from typing import Final

_NO_ENTRY: Final = re.compile(
    r"(?:no pg_hba\.conf entry for|pg_hba\.conf rejects) (?P<replication>replication connection (?:from|for) )?host "
    r'"(?P<host>[^"]*)", user "(?P<user>[^"]*)"(?:, database "(?P<database>[^"]*)")?'
)
_NO_ROLE: Final = re.compile(r'role "(?P<role>.*)" does not exist')
_NO_LOGIN: Final = re.compile(r'role "(?P<role>.*)" is not permitted to log in')
_NO_SENDER: Final = re.compile("permission denied to start wal sender|replication role", re.IGNORECASE)
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def hba_line(role: str, address: str | None, database: str = "replication") -> str:
    """The line that lets a role in from an address, or over a socket of the server's machine if that is None."""
    names = [name if _PLAIN.fullmatch(name) else quoted(name) for name in (database, role)]
    if not address or address == "[local]":
        return f"local {' '.join(names)} scram-sha-256"
    return f"host {' '.join(names)} {address}/{128 if ':' in address else 32} scram-sha-256"


def remedy(message: str, user: str) -> str:
    """What to do about a server that let `user` not in; empty if its message says something else."""
    if entry := _NO_ENTRY.search(message):
        database = "replication" if entry["replication"] else entry["database"] or "all"
        line = hba_line(entry["user"], entry["host"], database)
        return f"add a line to pg_hba.conf, then SELECT pg_reload_conf(): {line}"
    if _NO_SENDER.search(message):
        return f"ALTER ROLE {quoted(user)} REPLICATION"
    if role := _NO_ROLE.search(message):
        return f"check the address; or CREATE ROLE {quoted(role['role'])} LOGIN REPLICATION PASSWORD '…'"
    if role := _NO_LOGIN.search(message):
        return f"ALTER ROLE {quoted(role['role'])} LOGIN"
    return ""
