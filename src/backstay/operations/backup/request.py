"""What is asked of a backup, and what it tells when it is done."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final, Literal, TypeAlias

from backstay.core.arguments import Bounds, checks_arguments
from backstay.core.clock import Clock, ns_from_datetime
from backstay.core.ids import is_ulid
from backstay.core.names import require_utf8, require_word
from backstay.core.times import require_zone
from backstay.errors import InvalidRequest
from backstay.repository.snapshots.selectors import LATEST
from backstay.repository.snapshots.store import Manifest, SnapshotKind
from backstay.sources.source import Problem, Source

BackupKind: TypeAlias = Literal["full", "incremental", "differential"]

# One reader keeps two processors busy with what follows it.
DEFAULT_READERS: Final = 1 if (os.cpu_count() or 1) <= 2 else 2
MOST_READERS: Final = 64
FUTURE_NS: Final = 86_400 * 1_000_000_000  # a day: clocks differ, and so do zones


@checks_arguments
@dataclass(frozen=True, slots=True, kw_only=True)
class BackupOptions:
    """How to back up; `time` is what the snapshot claims, now if None."""

    kind: BackupKind = "incremental"
    host: str
    name: str | None = None
    tags: tuple[str, ...] = ()
    description: str = ""
    time: datetime | None = None
    read_concurrency: Annotated[int, Bounds(1, MOST_READERS)] = DEFAULT_READERS  # files read at once
    dry_run: bool = False
    skip_unchanged: bool = False  # make no snapshot of what is as in the newest, unless everything was read


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupResult:
    """What a backup did; sizes in bytes. `snapshot` is None after a dry run.

    It is None too when nothing has changed since the snapshot `parent`, and none was wanted then.
    """

    snapshot: str | None
    kind: SnapshotKind
    parent: str | None
    files_new: int
    files_changed: int
    files_unchanged: int
    files: int
    dirs: int
    bytes_scanned: int
    bytes_read: int
    bytes_added: int
    duration_s: float
    errors: tuple[Problem, ...]


def check_options(options: BackupOptions, clock: Clock) -> None:
    """Raises InvalidRequest for what no snapshot may claim to be."""
    check_name(options.name)
    require_word("host", options.host)
    for tag in options.tags:
        require_word("tag", tag)
    require_utf8("description", options.description)
    _check_time(options, clock)


def check_name(name: str | None) -> None:
    """Names are chosen by people, typed in shells, and stand where ids and `latest` do. Raises InvalidRequest."""
    if name is None:
        return
    if not name or len(name) > 200 or any(c in name for c in ":/\n\0"):
        raise InvalidRequest(
            f"{name!r} cannot name a backup",
            cause="a name has 1 to 200 characters, and no `:`, `/` or line break among them",
            hint="choose another name",
        )
    if name.lower() == LATEST or is_ulid(name.lower()):
        raise InvalidRequest(
            f"{name!r} cannot name a backup",
            cause="`latest` is the newest snapshot of all" if name.lower() == LATEST else "it looks like an id",
            hint="choose another name: this one could never be asked for",
        )


def _check_time(options: BackupOptions, clock: Clock) -> None:
    """A snapshot from the future would be believed by nobody, and none before 1970 was ever made."""
    require_zone(options.time)
    if options.time is None:
        return
    if not 0 <= ns_from_datetime(options.time) <= clock.now_ns() + FUTURE_NS:
        raise InvalidRequest(
            f"a snapshot cannot have been made at {options.time.isoformat()}",
            cause="that lies in the future, or before 1970",
            hint="give the time at which the data was as it is",
        )


def kind_of(options: BackupOptions, base: Manifest | None) -> SnapshotKind:
    """What a snapshot is in the end: without a base everything is read, whatever was asked for."""
    if base is None:
        return "full"
    return "differential" if options.kind == "differential" else "incremental"


def result_of(manifest: Manifest, *, took_s: float, errors: Sequence[Problem]) -> BackupResult:
    """What the run that made a manifest tells."""
    stats = manifest.stats
    return BackupResult(
        snapshot=manifest.id,
        kind=manifest.kind,
        parent=manifest.parent,
        files_new=stats.files_new,
        files_changed=stats.files_changed,
        files_unchanged=stats.files_unchanged,
        files=stats.files,
        dirs=stats.dirs,
        bytes_scanned=stats.bytes,
        bytes_read=stats.bytes_read,
        bytes_added=stats.bytes_added,
        duration_s=took_s,
        errors=tuple(errors),
    )


def source_key(source: Source, name: str | None) -> str:
    """What makes two backups backups of the same source on a host: its name, else what it reads."""
    if name is not None:
        return f"{source.kind}:name={name}"
    return f"{source.kind}:" + ":".join(sorted(path.decode("utf-8", "backslashreplace") for path in source.paths))
