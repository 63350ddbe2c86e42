"""The roles that a restore needs: owners of what is restored, and who has privileges on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

from backstay.sources.postgres.archive import Entry

_GRANTS: Final = frozenset({"ACL", "DEFAULT ACL"})
_WORD: Final = re.compile(r'"(?:[^"]|"")*"|[^\s";,]+')
_BEFORE_ROLES: Final = frozenset({"TO", "FROM", "ROLE", "BY", "AUTHORIZATION"})
_NOBODY: Final = frozenset({"PUBLIC", "DEFAULT"})


def owners(entries: Iterable[Entry]) -> set[str]:
    """Who owns the objects of a dump."""
    return {entry.owner for entry in entries if entry.owner}


def grantees(entries: Iterable[Entry]) -> set[str]:
    """Whom its GRANT and REVOKE commands name."""
    return {role for entry in entries if entry.kind in _GRANTS for role in _roles(entry.definition)}


def _roles(commands: str) -> Iterator[str]:
    words = _WORD.findall(commands)
    for before, word in pairwise(words):
        if before in _BEFORE_ROLES and word not in _NOBODY:
            yield word[1:-1].replace('""', '"') if word.startswith('"') else word
