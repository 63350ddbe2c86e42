"""What a restore of a SQLite database asks for besides the restore of a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from backstay.core.events import EventSink, Started, finished, ignore
from backstay.core.names import printable
from backstay.errors import InvalidRequest, RestoreConflict
from backstay.operations.restore.guarded import Guarded
from backstay.operations.restore.plan import wanted
from backstay.operations.restore.request import Conflict, RestoreOptions
from backstay.operations.snapshots.walk import Enter, Item
from backstay.operations.tiers.cold_packs import ColdPacks, make_readable
from backstay.repository.blobs.contents import read_content
from backstay.repository.nodes import EMPTY, Node
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.trees.listings import find_node
from backstay.sources.existing import existing_equals
from backstay.sources.files_target import FilesTarget
from backstay.sources.sqlite.database import KIND
from backstay.sources.sqlite.target import has_log, make_way, require_database, require_unused, settle


def is_sqlite(manifest: Manifest) -> bool:
    """Whether a snapshot holds a SQLite database that was backed up as one."""
    return manifest.source.startswith(f"{KIND}:")


def look_at_databases(
    repository: Repository, manifest: Manifest, target: FilesTarget, options: RestoreOptions, *, act: bool
) -> None:
    """Before a restore of files is planned: nobody uses what lies in its way, and with `act` it has no log any more.

    Raises RestoreConflict, InvalidRequest.
    """
    for path in _places(repository, manifest, target, options):
        look_at_database(path, options.conflict, act=act)


def look_at_database(path: bytes, conflict: Conflict, *, act: bool) -> None:
    """The same for one path."""
    if conflict == "skip" or not (os.path.lexists(path) or has_log(path)):
        return
    shown = printable(path)
    if conflict in ("newer", "rename"):
        raise InvalidRequest(
            f"there is a database {shown}, which --conflict {conflict} does not fit",
            cause="a database and its log belong together, and are replaced together or not at all",
            hint="choose --conflict overwrite or skip, or restore to another directory",
        )
    require_unused(path)
    if conflict == "fail" and has_log(path):
        raise RestoreConflict(
            f"beside {shown} lies a log that is not part of the snapshot, nothing was written",
            cause="SQLite would replay it into the restored database",
            hint="choose --conflict overwrite, which removes it, or restore to another directory",
            paths=(shown,),
        )
    if act and conflict == "overwrite":
        settle(path)


def _places(
    repository: Repository, manifest: Manifest, target: FilesTarget, options: RestoreOptions
) -> Iterator[bytes]:
    """Where the files of a restore will lie."""
    root, base = os.fsencode(target.root).rstrip(b"/"), b""
    for visit in wanted(repository, manifest, options):
        if isinstance(visit, Enter) and not base:
            base = visit.path
        elif isinstance(visit, Item):
            yield root + b"/" + visit.path[len(base) :].lstrip(b"/")


def restore_sqlite(
    repository: Repository,
    manifest: Manifest,
    path: bytes,
    options: RestoreOptions,
    *,
    dry_run: bool = False,
    events: EventSink = ignore,
) -> Node | None:
    """Restore the database of a snapshot as the file `path`, and say what it is; None if the same lies there already.

    Raises RestoreConflict, also for what is there and no database, and InvalidRequest for a snapshot without one, and
    for a path in the repository.
    """
    node = _database(repository, manifest)
    Guarded(repository).refuse_within(os.path.realpath(path))
    if options.conflict == "overwrite":
        require_database(path)
    look_at_database(path, options.conflict, act=not dry_run)
    directory, _, name = path.rpartition(b"/")
    target = FilesTarget(Path(os.fsdecode(directory or b"/")), allow_root=True, before_naming=make_way)
    target.check()
    place = target.open_root(create=False)
    try:
        if place.lstat(name) is not None:
            if options.conflict == "skip" or existing_equals(place, name, node):
                return None
            if options.conflict != "overwrite":
                raise _in_the_way(path)
        if dry_run:
            return node
        cold = ColdPacks(repository)
        if cold:
            cold.need_file(node)
            make_readable(repository, cold.needed(), days=options.thaw_days, wait=options.wait, events=events)
        events(Started(operation="restore", total_files=1, total_bytes=node.size))
        with place.begin_file(name, node.size, None) as pending:
            at = 0
            for piece in read_content(node.content or EMPTY, repository.reader):
                pending.write_at(at, piece)
                at += len(piece)
            pending.commit(node)
        target.sync()
    finally:
        place.close()
    finished(events, "restore")
    return node


def _database(repository: Repository, manifest: Manifest) -> Node:
    if not is_sqlite(manifest):
        raise InvalidRequest(
            f"snapshot {manifest.id} holds no SQLite database",
            cause=f"it was made of {manifest.source.partition(':')[0]} data",
            hint="restore it with --to DIR",
        )
    node = find_node(manifest.root, manifest.paths[0], repository.reader)
    assert node is not None
    return node


def _in_the_way(path: bytes) -> RestoreConflict:
    shown = printable(path)
    return RestoreConflict(
        f"{shown} differs from the snapshot, nothing was written",
        cause="another database or file lies there",
        hint="choose --conflict overwrite, or another path",
        paths=(shown,),
    )
