"""Restores: planned, begun, followed."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, model_validator
from typing_extensions import TypedDict

from backstay.api.models.backups import Sources
from backstay.api.models.base import Asked, Line, Moment, PathText
from backstay.api.models.jobs import JobQuery

Conflict = Literal["fail", "skip", "overwrite", "newer", "if_newer", "rename"]
Patterns = Annotated[list[PathText], Field(max_length=1000, default_factory=list)]


class AskedTarget(Asked):
    """Where a restore goes: a directory, or a database by its address, which holds no password."""

    path: Annotated[PathText | None, Field(pattern="^/", description="a directory, by its whole path")] = None
    source: Annotated[
        PathText | None, Field(pattern="^/", description="only this part of the backup, put itself into the directory")
    ] = None
    database: Annotated[
        Line | None, Field(description="postgresql://…, mysql://… or sqlite:///…, as the service allows")
    ] = None
    schemas: Annotated[list[Line], Field(max_length=100, default_factory=list)]
    tables: Annotated[list[Line], Field(max_length=1000, default_factory=list)]
    owners: bool = True

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.path is None) == (self.database is None):
            raise ValueError("a target has either a `path` or a `database`")
        return self


class AskedRestore(Asked):
    """What to restore, and where to. With a `plan_id` everything else is as it was planned."""

    plan_id: Annotated[Line | None, Field(description="from `POST /api/restore/validate`")] = None
    backup_id: Annotated[Line | None, Field(description="an id, its beginning, or a name for the newest of it")] = None
    policy: Annotated[Line | None, Field(description="instead of a backup: the newest of each of its sources")] = None
    sources: Sources
    at: Annotated[
        Moment | None,
        Field(
            validation_alias=AliasChoices("at", "target_timestamp"),
            description="of each source the newest backup that is not later",
        ),
    ] = None
    target: AskedTarget | None = None
    include: Patterns
    exclude: Patterns
    conflict: Conflict = "fail"
    delete: Annotated[bool, Field(description="also delete what the backup has not")] = False
    validate_before: Annotated[
        bool, Field(validation_alias=AliasChoices("validate_before", "validate_before_restore"))
    ] = False
    verify: Annotated[bool, Field(description="compare what was written")] = False
    parallel: Annotated[int | None, Field(ge=1, le=64)] = None
    dry_run: bool = False
    mode: Annotated[Literal["beside", "in_place"], Field(description="`in_place` has no target")] = "beside"


class RestoreJobQuery(JobQuery):
    """Which restores."""

    kind: Literal["restore", "recovery"] | None = None


class ConflictDocument(TypedDict):
    """Something that is in the way."""

    path: str
    reason: str


class PlannedDocument(TypedDict):
    """What would be restored of one backup; `room` is what is free at its target, null where nobody can tell."""

    backup_id: str
    kind: str
    target: str
    files: int
    dirs: int
    bytes: int
    unchanged: int
    conflict_count: int
    deletions: list[str]
    deletion_count: int
    room: int | None
    warnings: list[str]


class PlanDocument(TypedDict):
    """What a restore would do. `refused` says that it would stop at conflicts before anything is written."""

    plan_id: str
    expires_at: datetime
    backups: list[str]
    files: int
    bytes: int
    conflict: str
    conflicts: list[ConflictDocument]
    conflict_count: int
    refused: bool
    fits: bool
    estimated_seconds: float | None
    parts: list[PlannedDocument]
