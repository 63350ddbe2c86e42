"""SQLite's own check of a database, which may use what only its own program adds to SQLite."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from typing import Final

_UNKNOWN: Final = re.compile(r"no such (collation) sequence: (.+)|unknown (function): (.+)\(\)", re.DOTALL)
_MOST: Final = 100  # stand-ins for one database


@dataclass(frozen=True, slots=True)
class Check:
    """What SQLite says of a database, one `ok` if all is well, and what it lacked, as `collation NAME`.

    Where something was lacking nobody compared the indexes with their tables: their order is not known here.
    """

    says: tuple[str, ...]
    lacked: tuple[str, ...]

    @property
    def is_ok(self) -> bool:
        return self.says == ("ok",)

    def __str__(self) -> str:
        told = "; ".join(self.says)
        return told + (f", indexes not compared: SQLite has no {', '.join(self.lacked)} here" if self.lacked else "")


def check(session: sqlite3.Connection, *, thorough: bool, limit: int) -> Check:
    """Let SQLite check the pages, and if `thorough` the indexes; of what is wrong at most `limit` lines.

    Raises sqlite3.Error.
    """
    lacked: list[str] = []
    while True:
        pragma = "integrity_check" if thorough and not lacked else "quick_check"
        try:
            return Check(tuple(str(row[0]) for row in session.execute(f"PRAGMA {pragma}({limit})")), tuple(lacked))
        except sqlite3.OperationalError as error:
            lacking = what_lacks(error)
            if lacking is None or len(lacked) >= _MOST:
                raise
            kind, _, name = lacking.partition(" ")
            if kind == "collation":
                session.create_collation(name, _in_order)
            else:
                session.create_function(name, -1, _empty, deterministic=True)
            lacked.append(lacking)


def what_lacks(error: sqlite3.Error) -> str | None:
    """`collation NAME` or `function NAME`, where an error says that SQLite does not know it."""
    found = _UNKNOWN.fullmatch(str(error))
    return f"{found[1] or found[3]} {found[2] or found[4]}" if found else None


def _in_order(_row: str, _before: str) -> int:
    return 1


def _empty(*_values: object) -> str:
    """A value that generated columns may have, those too that are NOT NULL."""
    return ""
