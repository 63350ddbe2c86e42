"""How a restore is asked for, and what it needs of its surroundings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from backstay.control.manager.results import RestoreMode
from backstay.core.clock import Clock
from backstay.core.events import EventSink, ignore
from backstay.operations.restore.request import Conflict, RestoreOptions
from backstay.operations.snapshots.walk import EVERYTHING
from backstay.repository.repository import Repository
from backstay.repository.snapshots.selectors import stored_path
from backstay.sources.filters import Selection


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """How to restore. `include` and `exclude` choose among files; they do not go with databases.

    `beside` restores to the targets. `in_place` restores files to where they came from: all is written beside its
    place first, and put in place in the end; what was there comes back if anything fails.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    conflict: Conflict = "fail"
    delete: bool = False
    validate_before: bool = False
    verify: bool = False
    parallel: int | None = None
    mode: RestoreMode = "beside"

    def options(self, source: str | Path | None = None, *, spared: tuple[Path, ...] = ()) -> RestoreOptions:
        """The same for one restore of files, which leaves `spared` alone."""
        chosen = Selection(_patterns(self.include), _patterns(self.exclude)) if self.include or self.exclude else None
        return RestoreOptions(
            path=None if source is None else stored_path(source),
            chooser=chosen or EVERYTHING,
            conflict=self.conflict,
            delete=self.delete,
            verify=self.verify,
            in_place=self.mode == "in_place",
            spared=spared,
            parallel=self.parallel,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The repository and the world. `checkpoint` may raise Interrupted, between steps."""

    repository: Repository
    environ: Mapping[str, str] = field(repr=False)
    clock: Clock
    warn: Callable[[str], None]
    events: EventSink = ignore
    checkpoint: Callable[[], None] = lambda: None


def room_at(place: Path) -> int | None:
    """The bytes that are free where a path is, or would be."""
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        found = os.statvfs(place)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def _patterns(texts: Sequence[str]) -> list[bytes]:
    return [os.fsencode(text) for text in texts]
