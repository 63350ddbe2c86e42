"""The kinds of jobs, and what those are asked for with that take more than a word or two.

All arguments are small: ids, names and numbers, never data and never secrets. What is left out has the default of the
command that does the same.
"""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from backstay.catalog.models.jobs import FINISHED as FINISHED
from backstay.catalog.models.jobs import JobKind as JobKind
from backstay.catalog.models.jobs import JobStatus as JobStatus


class RestoreTargetArguments(TypedDict, total=False):
    """Where a restore goes: a directory `path`, into which with `source` only what lies there is put, itself; or a
    `database` by its address, which holds no password.
    """

    path: str
    source: str | None
    database: str
    schemas: list[str]
    tables: list[str]
    owners: bool


class PlaceArguments(TypedDict):
    """What a place on a disk was when it was looked at: its path without links, and its file system as a host that was
    started at `boot` numbers it.
    """

    path: str
    real: str
    device: int
    host: str
    boot: str


class RestoreArguments(TypedDict, total=False):
    """`restore`, of `backups` by their ids into each of the targets. The row's backup is the first of them.

    `places` are what the targets were when the restore was asked for. With `mode` "in_place" files go back to where
    they came from, and no target is named.
    """

    backups: list[str]
    targets: list[RestoreTargetArguments]
    places: list[PlaceArguments]
    include: list[str]
    exclude: list[str]
    conflict: Literal["fail", "skip", "overwrite", "newer", "rename"]
    delete: bool
    mode: Literal["beside", "in_place"]
    validate_before: bool
    verify: bool
    parallel: int | None
    dry_run: bool


class RecoveryArguments(TypedDict, total=False):
    """`recovery`, by the plan of a name whose steps have this digest.

    `confirmed` are the steps whose questions were answered by yes; `run` is the id of the first job of the recovery,
    for one that goes on with it.
    """

    plan: str
    digest: str
    confirmed: list[str]
    run: str
    dry_run: bool
