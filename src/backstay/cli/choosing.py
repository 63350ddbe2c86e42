"""The snapshots that a command line means."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from backstay.cli.context import Context
from backstay.cli.render import local_time
from backstay.core.local_zone import LOCAL
from backstay.core.names import printable
from backstay.core.quantities import plural
from backstay.errors import BackstayError, CorruptedBackup, InvalidRequest, NotFound

if TYPE_CHECKING:
    from backstay.repository.repository import Repository
    from backstay.repository.snapshots.store import Manifest

_MEND_HINT = "put the objects back from a copy; what there is no copy of, `backstay repair snapshots` gives up"


def readable(context: Context, repository: Repository) -> tuple[list[Manifest], list[str]]:
    """(snapshots, oldest first; names of those that cannot be read, each of which was warned about)."""
    damaged: list[str] = []

    def note(name: str, error: BackstayError) -> None:
        damaged.append(name)
        context.warn(str(error))

    with repository.passing_unreadable():
        found = repository.snapshots.shown(on_damage=note)
    return sorted(found, key=lambda manifest: (manifest.time_ns, manifest.id)), damaged


def one(
    context: Context, repository: Repository, text: str, *, at: datetime | None = None, path: bytes | None = None
) -> Manifest:
    """The snapshot that `text` means, when `path` is wanted of it. Raises NotFound, InvalidRequest, CorruptedBackup."""
    from backstay.repository.snapshots.selectors import choose

    known, damaged = readable(context, repository)
    if damaged and not known:
        raise CorruptedBackup("no snapshot can be read", cause=f"{damaged[0]} cannot be read", hint=_MEND_HINT)
    try:
        chosen = choose(known, text, now=context.clock.now(), at=at, path=path)
    except NotFound as error:
        if not damaged:
            raise
        cause = f"{damaged[0]} cannot be read, and may be it; none of the others is"
        raise CorruptedBackup(f"snapshot {text!r} cannot be found", cause=cause, hint=_MEND_HINT) from error
    by_id = chosen.id.startswith(text.lower())
    if at is None and not by_id:
        warn_of_future(context, known)
    if damaged and not by_id:
        raise CorruptedBackup(
            f"it cannot be told which snapshot {text!r} means",
            cause=f"{damaged[0]} cannot be read, and may be it",
            hint=f"the newest that can be read is {chosen.id} of {local_time(chosen.time)}: choose it, or another of "
            f"`backstay list`, by its id; {_MEND_HINT}",
        )
    return chosen


def warn_of_future(context: Context, known: Sequence[Manifest]) -> None:
    """Tell of snapshots that claim a time to come, which `latest` does not mean as long as there is another."""
    from backstay.repository.snapshots.selectors import is_to_come

    now = context.clock.now()
    if later := [manifest for manifest in known if is_to_come(manifest, now)]:
        last = later[-1]
        context.warn(
            f"{plural(len(later), 'snapshot claims', 'snapshots claim')} a time that is yet to come, such as "
            f"{last.id} of {local_time(last.time)}; `latest` prefers others: a clock was wrong then, or is now"
        )


def moment(context: Context, text: str) -> datetime:
    """A time from the command line; one of whole seconds means all of that second."""
    from backstay.core.times import parse_moment

    found = parse_moment(text, now=context.clock.now(), zone=LOCAL)
    return found if found.microsecond else found + timedelta(microseconds=999_999)


def only_path(inside: bytes | None, text: str | None) -> bytes | None:
    """The one path of `ID:PATH` and PATH that is given, if any. Raises InvalidRequest for two that differ."""
    from backstay.repository.snapshots.selectors import stored_path

    if text is None:
        return inside
    path = stored_path(text)
    if inside is not None and inside != path:
        raise InvalidRequest(
            "it is not clear which path is meant",
            cause=f"{printable(inside)} stands behind the id, and {printable(path)} by itself",
            hint="give one of them",
        )
    return path
