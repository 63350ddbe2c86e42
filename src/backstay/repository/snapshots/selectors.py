"""Which snapshot a person means by an id, the beginning of one, a name or `latest`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final, Protocol, TypeVar

from backstay.core.names import printable
from backstay.errors import InvalidRequest, NotFound

LATEST: Final = "latest"
MINIMUM_PREFIX: Final = 4
TOLERANCE: Final = timedelta(hours=1)  # by which clocks may differ
_SHOWN: Final = 8  # ids or names that an error tells
# The path begins with one slash: `latest:postgres://host/db` is a name alone.
_PATH: Final = re.compile(r":(?=/(?!/))")


class Selectable(Protocol):
    """What a snapshot is chosen by; `id` is lower case, `time` is aware, `paths` are what was backed up."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str | None: ...
    @property
    def time(self) -> datetime: ...
    @property
    def paths(self) -> Sequence[bytes]: ...


SelectableT = TypeVar("SelectableT", bound=Selectable)


def is_to_come(snapshot: Selectable, now: datetime) -> bool:
    """Whether a snapshot claims a time that no clock can show yet: one was wrong when it was made, or is wrong now."""
    return snapshot.time.astimezone(UTC) > now + TOLERANCE


def choose(
    snapshots: Iterable[SelectableT],
    text: str,
    *,
    now: datetime,
    at: datetime | None = None,
    path: bytes | None = None,
) -> SelectableT:
    """The one snapshot that `text` means, not later than `at`.

    `text` is `latest`, `latest:NAME`, a full id, an exact name (the newest of that name is meant) or the beginning
    of an id in any case. What fits nothing is NotFound; what may mean several things, also a name and the beginning
    of an id, is an InvalidRequest.

    `latest` goes by time, then id, and takes a snapshot that is to come only if there is no other: one that was made
    while a clock was ahead would be the latest for months.

    Where the newest is meant and a `path` is wanted, it is the newest of those that hold the path: whatever else
    was backed up since is of another source.
    """
    known = sorted(snapshots, key=partial(_order, now=now if at is None else None))
    if not known:
        raise NotFound(
            "there is no snapshot to choose from",
            cause="none was made yet, or all were deleted",
            hint="make one with `backstay backup PATH`",
        )
    if text == LATEST:
        return _newest(_holding(known, path, "snapshot"), at, "snapshot")
    if text.startswith(f"{LATEST}:"):
        return _newest_named(known, text.removeprefix(f"{LATEST}:"), at, path)
    if exact := [snapshot for snapshot in known if snapshot.id == text.lower()]:
        return _newest(exact, at, f"snapshot {text}")
    named = [snapshot for snapshot in known if text and snapshot.name == text]
    begun = _begun(known, text)
    if named and begun:
        raise _ambiguous(text, begun, f"it is the name of a snapshot and begins {_listed(begun)}")
    return _newest_named(named, text, at, path) if named else _only(begun, text, at)


def stored_path(path: str | bytes | Path) -> bytes:
    """A path as snapshots hold it: absolute, and without what says nothing; a relative one begins in the current
    directory."""
    whole = os.path.abspath(os.fsencode(path))  # noqa: PTH100 - `..` is taken out
    return b"/" + whole.lstrip(b"/")  # abspath leaves two leading slashes as they are


def split_target(text: str) -> tuple[str, bytes | None]:
    """The snapshot and the absolute path of `ID`, `ID:/path`, `latest:/path` or `latest:NAME:/path`.

    The path begins at the first `:/` that no second slash follows; it comes as the file system's own bytes, and as
    snapshots hold it: without `.`, `..` and slashes that say nothing.
    """
    found = _PATH.search(text)
    snapshot, path = (text[: found.start()], os.fsencode(text[found.end() :])) if found else (text, None)
    if path is not None:
        path = stored_path(path)
    if not snapshot:
        raise InvalidRequest(
            f"{text!r} names no snapshot", cause="a path alone may lie in many", hint="write ID:/path or latest:/path"
        )
    return snapshot, path


def shortest_prefixes(ids: Iterable[str], minimum: int = 8) -> dict[str, str]:
    """For each id the shortest beginning, of at least `minimum` characters, that no other of the ids shares."""
    ordered = sorted(set(ids))
    lengths = dict.fromkeys(ordered, minimum)
    for left, right in pairwise(ordered):
        needed = _shared(left, right) + 1
        lengths[left] = max(lengths[left], needed)
        lengths[right] = max(lengths[right], needed)
    return {whole: whole[:length] for whole, length in lengths.items()}


def _shared(left: str, right: str) -> int:
    """How many characters two ids begin with alike."""
    return next((place for place, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), len(left))


def _newest_named(known: Sequence[SelectableT], name: str, at: datetime | None, path: bytes | None) -> SelectableT:
    if not name:
        raise InvalidRequest(
            "`latest:` must be followed by a name",
            cause="it asks for a name",
            hint="write latest:NAME, or latest alone",
        )
    what = f"snapshot named {name!r}"
    named = [snapshot for snapshot in known if snapshot.name == name]
    if not named:
        names = sorted({snapshot.name for snapshot in known if snapshot.name})
        raise NotFound(
            f"there is no {what}",
            cause=f"the names are {_shortened(names)}" if names else "no snapshot has a name",
        )
    return _newest(_holding(named, path, what), at, what)


def _holding(matching: Sequence[SelectableT], path: bytes | None, what: str) -> Sequence[SelectableT]:
    """Those that backed up a path whole; if there are none, those that backed up something below it."""
    if path is None:
        return matching
    place = _parts(path)
    whole = [snapshot for snapshot in matching if any(_begins(_parts(top), place) for top in snapshot.paths)]
    found = whole or [snapshot for snapshot in matching if any(_begins(place, _parts(top)) for top in snapshot.paths)]
    if not found:
        raise NotFound(
            f"no {what} holds {printable(path)}",
            cause="it lies in nothing that was backed up",
            hint="`backstay list` shows what was backed up",
        )
    return found


def _parts(path: bytes) -> tuple[bytes, ...]:
    return tuple(filter(None, path.split(b"/")))


def _begins(upper: tuple[bytes, ...], lower: tuple[bytes, ...]) -> bool:
    """Whether one path is the other, or a directory above it."""
    return lower[: len(upper)] == upper


def _begun(known: Sequence[SelectableT], text: str) -> list[SelectableT]:
    if len(text) < MINIMUM_PREFIX:
        return []
    return [snapshot for snapshot in known if snapshot.id.startswith(text.lower())]


def _only(begun: Sequence[SelectableT], text: str, at: datetime | None) -> SelectableT:
    """The one snapshot whose id begins so; `at` never decides between several."""
    if len(text) < MINIMUM_PREFIX:
        raise InvalidRequest(
            f"{text!r} is too short to name a snapshot",
            cause=f"no snapshot has this name, and the beginning of an id takes {MINIMUM_PREFIX} characters",
            hint=NotFound.default_hint,
        )
    if not begun:
        hint = "a path after an id or a name begins with a slash, as in ID:/path" if ":" in text else ""
        raise NotFound(f"there is no snapshot {text!r}", cause="no id begins so and nothing has this name", hint=hint)
    if len(begun) > 1:
        raise _ambiguous(text, begun, f"it begins {_listed(begun)}")
    return _newest(begun, at, f"snapshot {text}")


def _order(snapshot: Selectable, now: datetime | None) -> tuple[bool, datetime, str]:
    """What `latest` goes by; the snapshots that are to come at `now` are before all others."""
    # In UTC, because times of one zone compare by the clock on the wall, which repeats an hour each autumn.
    return now is None or not is_to_come(snapshot, now), snapshot.time.astimezone(UTC), snapshot.id


def _newest(matching: Sequence[SelectableT], at: datetime | None, what: str) -> SelectableT:
    """The last of those that match, which are in order."""
    reached = [snapshot for snapshot in matching if at is None or snapshot.time.astimezone(UTC) <= at]
    if not reached:
        raise NotFound(
            f"there is no {what} that old",
            cause=f"the oldest is {matching[0].id} of {_stamp(matching[0].time)}",
            hint="give that time or a later one",
        )
    return reached[-1]


def _ambiguous(text: str, begun: Sequence[Selectable], cause: str) -> InvalidRequest:
    longer = shortest_prefixes((snapshot.id for snapshot in begun), len(text) + 1).values()
    hint = f"give at least {max(map(len, longer))} characters of the id, or latest:NAME for the newest of a name"
    return InvalidRequest(f"{text!r} may mean several snapshots", cause=cause, hint=hint)


def _listed(begun: Sequence[Selectable]) -> str:
    return _shortened(sorted(snapshot.id for snapshot in begun))


def _shortened(words: Sequence[str]) -> str:
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return ", ".join(words[:_SHOWN]) + more


def _stamp(moment: datetime) -> str:
    """The time in full, so that it can be given back as it stands."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
