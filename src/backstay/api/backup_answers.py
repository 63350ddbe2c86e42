"""Backups as answers."""

from __future__ import annotations

import base64
import stat
from typing import Literal

from backstay.api.models.backups import (
    BackupDetail,
    BackupDocument,
    DifferenceDocument,
    EntryDocument,
    ManifestDocument,
)
from backstay.catalog.models import Backup
from backstay.core.clock import datetime_from_ns
from backstay.operations.snapshots.look import Difference, Found
from backstay.repository.nodes import Node
from backstay.repository.repository import Repository


def backup_document(backup: Backup) -> BackupDocument:
    """A row of the list."""
    return BackupDocument(
        id=backup.id,
        policy=backup.policy,
        source=backup.source,
        type=backup.type,
        host=backup.host,
        time=backup.time,
        recorded_at=backup.recorded_at,
        description=backup.description,
        tags=backup.tags,
        paths=backup.paths,
        files=backup.files,
        bytes=backup.bytes,
        stored_bytes=backup.stored_bytes,
        held=backup.held,
        damaged=backup.damaged,
        job_id=backup.job_id,
        duration_s=backup.duration_s,
        verified_at=backup.verified_at,
        verified_ok=backup.verified_ok,
        rehearsed_at=backup.rehearsed_at,
        rehearsed_ok=backup.rehearsed_ok,
    )


def detail_of(backup: Backup) -> BackupDetail:
    """A row with what lists leave out."""
    return {**backup_document(backup), "repository": backup.repository}


def manifest_document(repository: Repository, ident: str) -> ManifestDocument:
    """What the repository says of a snapshot. Raises NotFound, CorruptedBackup."""
    manifest = repository.snapshots.get(ident)
    digest, stats = repository.snapshots.digest(ident), manifest.stats
    return ManifestDocument(
        sha256=digest.hex(),
        parent=manifest.parent,
        previous=manifest.previous,
        dirs=stats.dirs,
        files_new=stats.files_new,
        files_changed=stats.files_changed,
        files_unchanged=stats.files_unchanged,
        bytes_read=stats.bytes_read,
        unreadable=stats.errors,
        packs=len(manifest.packs),
        program=manifest.program,
        consistency=manifest.consistency,
    )


def entry_document(found: Found) -> EntryDocument:
    """An entry of a directory."""
    node = found.node
    document = EntryDocument(
        path=shown_path(found.path),
        type=_kind(node),
        mode=stat.filemode(node.mode),
        size=node.size,
        mtime=datetime_from_ns(node.mtime_ns),
        uid=node.uid,
        gid=node.gid,
        user=node.user,
        group=node.group,
        sha256=None if node.sha256 is None else node.sha256.hex(),
        target=None if node.target is None else shown_path(node.target),
    )
    if (raw := path_in_base64(found.path)) is not None:
        document["path_base64"] = raw
    return document


def difference_document(found: Difference) -> DifferenceDocument:
    """How one path differs."""
    document = DifferenceDocument(
        path=shown_path(found.path), change=found.change, old_size=found.old_size, new_size=found.new_size
    )
    if (raw := path_in_base64(found.path)) is not None:
        document["path_base64"] = raw
    return document


def _kind(node: Node) -> Literal["dir", "file", "symlink", "special"]:
    if node.is_dir:
        return "dir"
    if node.is_file:
        return "file"
    return "symlink" if node.is_symlink else "special"


def shown_path(path: bytes) -> str:
    """A path as text; bytes that are no UTF-8 become backslash escapes."""
    return path.decode("utf-8", "backslashreplace")


def path_in_base64(path: bytes) -> str | None:
    """The bytes of a path that is no UTF-8."""
    try:
        path.decode()
    except UnicodeDecodeError:
        return base64.b64encode(path).decode()
    return None
