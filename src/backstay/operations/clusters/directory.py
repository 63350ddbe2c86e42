"""What lies where a data directory is to be restored: nothing, an older state of the cluster, or something else.

A restore leaves a file in its directory for as long as it is at work, which says whose it is: so one that was cut short
can be begun again, although `global/pg_control`, which would say the same, is gone by then.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from backstay.core.durable_names import sync_directory
from backstay.errors import RestoreConflict, RestoreFailed
from backstay.sources.postgres.control_file import CONTROL, read_control
from backstay.sources.postgres.neighbours import tablespaces_of, user_of
from backstay.sources.postgres.recovery import STAGED

UNFINISHED: Final = "backstay_restore"  # holds the system identifier, in decimal
_PID: Final = "postmaster.pid"
_VERSION: Final = "PG_VERSION"
_STOP_FIRST: Final = "stop it with `pg_ctl -D {0} stop`; if surely none runs there, remove {0}/postmaster.pid"


def require_empty(place: Path) -> None:
    """Raises RestoreConflict unless a directory is empty or not there."""
    found = _names(place)
    if not found:
        return
    if _PID in found:
        raise _in_use(place)
    if UNFINISHED in found or STAGED in found:
        raise RestoreConflict(
            f"{place} holds a restore that was not finished, nothing was written",
            cause="it was cut short, or its WAL was not recovered yet",
            hint="give --delta to go on with it, or remove the directory if nobody needs it",
        )
    raise RestoreConflict(
        f"{place} is not empty, nothing was written",
        cause=f"it holds {', '.join(found[:5])}",
        hint="restore to another directory, or give --delta if it is an older state of this cluster",
    )


def require_older(place: Path, system: int, *, any_cluster: bool) -> None:
    """Raises RestoreConflict unless a directory is that of a stopped server of a cluster, or empty, or not there.

    With `any_cluster` it may be one of another cluster, but nothing else than a data directory.
    """
    found = _names(place)
    if not found:
        return
    if _PID in found:
        raise _in_use(place)
    if _VERSION not in found and UNFINISHED not in found:
        raise RestoreConflict(
            f"{place} is no data directory, nothing was written",
            cause=f"it has no {_VERSION}, but {', '.join(found[:5])}, and --delta removes what does not belong there",
            hint="name the data directory itself, or restore to an empty one",
        )
    if any_cluster:
        return
    owner = _owner(place)
    if owner != system:
        raise RestoreConflict(
            f"{place} is not of this cluster, nothing was written",
            cause=f"its system identifier is {owner}, that of the backup is {system}"
            if owner is not None
            else "its global/pg_control, which says whose it is, is missing or cut short",
            hint="restore to another directory; --other-cluster overwrites this one all the same",
        )


def require_free(place: Path, oid: int, at: str) -> None:
    """Raises RestoreConflict unless a server that recovers may make a tablespace in a place, as its WAL says at `at`.

    It takes the directory as it is: what another server has there would be taken for its own, and overwritten.
    """
    if found := _names(place):
        raise RestoreConflict(
            f"tablespace {oid} was made at {at}, behind the base backup; nothing was written",
            cause=f"a server that recovers makes it in {place} again, which holds {', '.join(found[:5])}",
            hint="choose a base backup that was begun later or a target before it, or restore where that place is free",
        )


def require_unused(place: Path, own: Path) -> None:
    """Raises RestoreConflict when a server of another data directory runs that has a tablespace in a place."""
    user = user_of(place)
    if user is not None and user != own.resolve():
        raise RestoreConflict(
            f"{place} is in use by a running server, nothing was written",
            cause=f"the data directory {user} has a tablespace there",
            hint="stop that server, or put the tablespaces elsewhere with --tablespaces DIR",
        )


def own_tablespaces(target: Path, places: Mapping[bytes, Path], *, in_place: bool, moved: bool) -> dict[bytes, Path]:
    """Where tablespaces of an older data directory are restored to, by oid; `places` is where new ones go.

    A directory may have been copied together with its links, and these then lead into what another server owns. So
    they are followed only `in_place`, when somebody said that they are its own. `moved` says that somebody chose the
    new places, so that old ones are left behind. A place to which no link leads must be empty.

    Raises RestoreConflict for a link that leads elsewhere when neither is given, and for a place that is another's.
    """
    links = {name.encode(): leads for name, leads in tablespaces_of(target)}
    found = {oid: links[oid] if in_place and oid in links else place for oid, place in places.items()}
    for oid, place in found.items():
        is_linked = oid in links and _is_same(links[oid], place)
        if oid in links and not is_linked and not moved:
            raise RestoreConflict(
                f"tablespace {oid.decode()} lies in {links[oid]}, nothing was written",
                cause=f"if {target} was copied from elsewhere, another server may own what its links lead to",
                hint="--tablespaces-in-place restores there; --tablespaces DIR leaves it alone",
            )
        if not is_linked and _names(place):
            raise RestoreConflict(
                f"{place} is not empty, nothing was written",
                cause=f"tablespace {oid.decode()} would go there, and no link of {target} leads to it",
                hint="choose another place with --tablespaces DIR, or move this one away",
            )
        require_unused(place, target)
    return found


def begin(target: Path, system: int) -> None:
    """Note whose a directory is going to be, then see to it that no server starts in it. Raises OSError.

    Each step is durable before the next one: a crash leaves what was there, or what can be begun with again.
    """
    descriptor = os.open(
        target / UNFINISHED, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644
    )
    try:
        os.write(descriptor, b"%d" % system)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(target)
    control = target / CONTROL
    if control.exists():
        control.unlink()
        sync_directory(control.parent)


def end(target: Path) -> None:
    """All is written and durable. A crash before leaves the note, with which a server starts too. Raises OSError."""
    (target / UNFINISHED).unlink()
    sync_directory(target)


def _owner(place: Path) -> int | None:
    """The system identifier of the cluster that a directory is of, as far as it is known."""
    try:
        marked = _marked(place)
        control = read_control(place) if marked is None else None
    except OSError as error:
        raise RestoreFailed(f"cannot look into {place}", cause=error.strerror or str(error)) from error
    return control.system if control is not None else marked


def _marked(place: Path) -> int | None:
    """Whose restore is at work; None if there is none, or it was cut short within its first write."""
    try:
        text = (place / UNFINISHED).read_text()
    except FileNotFoundError:
        return None
    return int(text) if text.isdecimal() else None


def _is_same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _names(place: Path) -> list[str]:
    try:
        return sorted(os.listdir(place))
    except FileNotFoundError:
        return []
    except NotADirectoryError:
        raise RestoreConflict(
            f"{place} is no directory", cause="a file is in the place", hint="choose another"
        ) from None
    except OSError as error:
        raise RestoreFailed(f"cannot look into {place}", cause=error.strerror or str(error)) from error


def _in_use(place: Path) -> RestoreConflict:
    return RestoreConflict(
        f"{place} belongs to a server, nothing was written",
        cause="a server runs in it, or was not stopped properly: postmaster.pid is there",
        hint=_STOP_FIRST.format(place),
    )
