"""Backups: asked for, listed, looked into."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired

from pydantic import AliasChoices, Field
from typing_extensions import TypedDict

from backstay.api.models.base import Asked, Line, Moment, Paged, PathText, Prose

BackupType = Literal["full", "incremental", "differential"]
Level = Literal["metadata", "integrity", "full", "restore_test"]
Sources = Annotated[
    list[Line],
    Field(
        default_factory=list,
        max_length=100,
        validation_alias=AliasChoices("sources", "services"),
        description="sources of the policy by their own names or those of their snapshots; `*`, or none, for all",
    ),
]


class CreateBackup(Asked):
    """A run of a policy, or of some of its sources."""

    policy: Annotated[Line | None, Field(description="may be left out where there is one policy only")] = None
    sources: Sources
    type: BackupType = "incremental"
    description: Prose | None = None
    tags: Annotated[list[Line], Field(max_length=50, default_factory=list)]
    retention_days: Annotated[int | None, Field(ge=1, le=36500, description="keep it so long, whatever else")] = None
    dry_run: bool = False
    priority: Annotated[int, Field(ge=-100, le=100)] = 0


class BackupQuery(Paged):
    """Which backups; what is left out does not choose."""

    policy: Line | None = None
    source: Annotated[Line | None, Field(description="the snapshots' name")] = None
    type: BackupType | None = None
    host: Line | None = None
    tag: Line | None = None
    text: Annotated[Line | None, Field(description="stands in the description")] = None
    since: Annotated[Moment | None, Field(description="made at this time or later")] = None
    until: Annotated[Moment | None, Field(description="made before this time")] = None
    held: bool | None = None
    damaged: bool | None = None
    verified: bool | None = None


class ValidateBackup(Asked):
    """How thoroughly to verify."""

    level: Level = "integrity"
    min_bytes: Annotated[int | None, Field(ge=0, le=1 << 62)] = None


class HoldBackup(Asked):
    """Why a backup must stay."""

    reason: Line = "held"


class TreeQuery(Paged):
    """Which directory."""

    path: Annotated[PathText, Field(pattern="^/")] = "/"


class FileQuery(Paged):
    """Which file."""

    path: Annotated[PathText, Field(pattern="^/")]


class BackupDocument(TypedDict):
    """A backup. `id` is that of its snapshot, `source` the snapshot's name; sizes in bytes."""

    id: str
    policy: str | None
    source: str
    type: str
    host: str
    time: datetime
    recorded_at: datetime
    description: str
    tags: list[str]
    paths: list[str]
    files: int
    bytes: int
    stored_bytes: int
    held: bool
    damaged: bool
    job_id: str | None
    duration_s: float | None
    verified_at: datetime | None
    verified_ok: bool | None
    rehearsed_at: datetime | None
    rehearsed_ok: bool | None


class ManifestDocument(TypedDict):
    """What the repository says of a snapshot: where it comes from, and what it needs."""

    sha256: str
    parent: str | None
    previous: str | None
    dirs: int
    files_new: int
    files_changed: int
    files_unchanged: int
    bytes_read: int
    unreadable: int
    packs: int
    program: str
    consistency: dict[str, str]


class BackupDetail(BackupDocument):
    """A backup with all that is known of it."""

    repository: str


class EntryDocument(TypedDict):
    """A file, directory or other entry; `path_base64` where the path is no UTF-8."""

    path: str
    path_base64: NotRequired[str]
    type: Literal["dir", "file", "symlink", "special"]
    mode: str
    size: int
    mtime: datetime
    uid: int
    gid: int
    user: str | None
    group: str | None
    sha256: str | None
    target: str | None


class DifferenceDocument(TypedDict):
    """How one path differs between two backups."""

    path: str
    path_base64: NotRequired[str]
    change: str
    old_size: int | None
    new_size: int | None


class EvidenceDocument(TypedDict):
    """A report of a verification or a rehearsal."""

    id: str
    backup_id: str
    job_id: str | None
    kind: str
    ok: bool
    created_at: datetime
    digest: str
    report: NotRequired[dict[str, Any]]
