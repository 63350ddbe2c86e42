"""A tree with all that a restore must bring back, and what is there when it is done."""

from __future__ import annotations

import os
from pathlib import Path

from backstay.core.events import Event, Warned
from backstay.operations.restore.run import RestoreOptions, RestoreResult, run_restore
from backstay.repository.repository import Repository
from backstay.trust.secrets import Secret

SECRET = Secret.new_keyfile()
DIRECTORIES, FILES_EACH = 20, 26


def restored(repository: Repository, out: Path, told: list[Event] | None = None) -> RestoreResult:
    options = RestoreOptions(verify=True)
    newest = repository.snapshots.live()[-1]
    return run_restore(repository, newest, out, options, events=(told if told is not None else []).append)


def facts(place: Path) -> dict[str, tuple[object, ...]]:
    """Everything that a restore must bring back."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [place, *place.rglob("*")]:
        info = path.lstat()
        data = path.read_bytes() if path.is_file() else b""
        xattrs = {name: os.getxattr(path, name) for name in os.listxattr(path)}
        found[str(path.relative_to(place))] = (
            info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, info.st_nlink, data, xattrs,
        )  # fmt: skip
    return found


def warnings(told: list[Event]) -> list[str]:
    return [event.message for event in told if isinstance(event, Warned)]
