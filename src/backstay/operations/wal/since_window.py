"""From which backups on a log stays, so that a length of time can be recovered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

_Backup = TypeVar("_Backup")


def needed_from(
    backups: Sequence[_Backup],
    window: timedelta | None,
    now: datetime,
    *,
    name: Callable[[_Backup], str],
    moment: Callable[[_Backup], datetime],
) -> list[_Backup]:
    """Of each name the newest backup that is at least as old as the window, or the oldest, and all after it.

    All of them without a window. A later one may lie further in front in the log, where a clock was set.
    """
    if window is None:
        return list(backups)
    found: list[_Backup] = []
    for one in {name(backup) for backup in backups}:
        own = sorted((backup for backup in backups if name(backup) == one), key=moment)
        before = [backup for backup in own if moment(backup) <= now - window]
        first = before[-1] if before else own[0]
        found += [backup for backup in own if moment(backup) >= moment(first)]
    return found
