"""Why WAL does not get into the repository by archive_command, as far as its server can tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from backstay.core.quantities import format_duration, plural
from backstay.repository.wal.store import StoredFile
from backstay.sources.postgres.archiving import Archiving

PATIENCE_S: Final = 300.0  # for a file to be archived: a server whose archiver dies again and again counts no failures
_LOG: Final = "the server's log has what it said"


def archiving_problems(found: Archiving) -> list[str]:
    """What is wrong, the worst first; nothing for a server that does not archive."""
    if not found.is_on:
        return []
    if not found.has_command:
        return ["archive_mode is on and archive_command is empty: nothing is archived, and the server keeps all WAL"]
    problems = []
    if found.discards:
        problems.append("archive_command succeeds whatever became of the file (true, :, exit 0): WAL is lost")
    if found.is_failing:
        problems.append(f"archiving fails: {found.failed_file} was refused, {_times(found.failures)} in all; {_LOG}")
    elif found.waiting is not None and found.waiting_s > PATIENCE_S:
        problems.append(
            f"{plural(found.waiting, 'file')} wait to be archived, the oldest for {format_duration(found.waiting_s)}: "
            f"archive_command hangs, or ends with a status above 125; {_LOG}"
        )
    elif found.waiting is None and found.last_file is None:
        problems.append(
            "archive_mode is on and nothing was archived yet; whether files wait only a role with pg_monitor may see"
        )
    return problems


def archives_here(found: Archiving, files: Mapping[str, StoredFile]) -> bool:
    """Whether what the server archived last is stored, all of it."""
    if not found.is_on or found.last_file is None:
        return False
    stored = files.get(found.last_file.removesuffix(".partial"))
    return stored is not None and (stored.whole or found.last_file.endswith(".partial"))


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
