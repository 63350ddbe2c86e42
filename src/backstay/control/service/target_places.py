"""Where on this machine's disks a restore goes: looked at when it is asked for, and again when it begins.

Between the two somebody else may have put a link in the way, or mounted something there; then the restore would write
to where nobody allowed it to. Links are only compared by the host that looked first, file systems only until it is
started anew: other hosts have other links, and numbers of file systems are given out at each start.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from backstay.control.jobs.kinds import PlaceArguments
from backstay.control.opening.opener import Opener
from backstay.errors import InvalidRequest, RestoreConflict
from backstay.repository.sessions.session import Process
from backstay.storage.registry import local_path

_HINT: Final = "look at what lies there, and ask for the restore again"


def place_seen(path: Path) -> PlaceArguments:
    """What a place is now. Raises InvalidRequest for one that cannot be looked at."""
    here = Process.current()
    real = real_path(path)
    return PlaceArguments(path=str(path), real=str(real), device=_device(real), host=here.host, boot=here.boot)


def require_same(places: Iterable[PlaceArguments]) -> None:
    """See that places are what they were. Raises RestoreConflict, InvalidRequest."""
    for before in places:
        now = place_seen(Path(before["path"]))
        if now["host"] != before["host"]:
            continue
        if now["real"] != before["real"]:
            raise RestoreConflict(
                f"{before['path']} leads elsewhere since the restore was asked for, nothing was written",
                cause=f"it was {before['real']}, and is {now['real']} now: something in it became a link",
                hint=_HINT,
                paths=(before["path"],),
            )
        if now["boot"] == before["boot"] and now["device"] != before["device"]:
            raise RestoreConflict(
                f"{before['path']} lies on another file system since the restore was asked for, nothing was written",
                cause="something was mounted there, or is not any more",
                hint=_HINT,
                paths=(before["path"],),
            )


def require_apart(place: Path, own: Sequence[Path]) -> None:
    """See that a target is apart from what the service keeps its own data in. Raises InvalidRequest."""
    real = real_path(place)
    for kept in map(real_path, own):
        if real == kept or kept in real.parents or (real in kept.parents and real != Path("/")):
            raise InvalidRequest(
                "nothing is restored there",
                cause=f"the service keeps its own data in {kept}",
                hint="choose another directory",
            )


def own_places(data_dir: Path, opener: Opener) -> Iterator[Path]:
    """The data directory, and where the repository and its copies lie if that is on disks of this machine."""
    yield data_dir
    for address in (opener.location.address, *opener.settings.mirrors):
        if (place := local_path(address)) is not None:
            yield place


def real_path(path: Path) -> Path:
    """A path without links. Raises InvalidRequest for one that cannot be looked at."""
    try:
        return Path(os.path.realpath(path))
    except OSError as error:
        raise InvalidRequest(
            "nothing is restored there",
            cause=f"{path} cannot be looked at: {error.strerror}",
            hint="choose another directory",
        ) from error


def _device(place: Path) -> int:
    """The file system of a place, or of what would hold it. Raises InvalidRequest."""
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    try:
        return place.lstat().st_dev
    except OSError as error:
        raise InvalidRequest(
            "nothing is restored there", cause=f"{place} cannot be looked at: {error.strerror}", hint=_HINT
        ) from error
