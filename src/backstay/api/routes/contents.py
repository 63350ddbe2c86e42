"""What is in backups: directories, files, and how two differ."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from typing import Annotated
from urllib.parse import quote

from fastapi import Query, Response
from starlette.responses import StreamingResponse

from backstay.api.answers import page
from backstay.api.backup_answers import difference_document, entry_document
from backstay.api.call import Caller
from backstay.api.endpoints import Section
from backstay.api.known import backup_meant
from backstay.api.models.backups import DifferenceDocument, EntryDocument, FileQuery, TreeQuery
from backstay.api.models.base import Ident, Paged, PageOf
from backstay.errors import InvalidRequest
from backstay.operations.snapshots.look import Found, diff, list_entries, open_file
from backstay.operations.snapshots.walk import subtree

section = Section("contents")


@section.get(
    "/api/backup/{backup}/tree",
    needs="restore:plan",
    answers=PageOf[EntryDocument],
    refuses=(404,),
    does="backup.tree",
    slow=True,
)
def list_tree(call: Caller, backup: Ident, asked: Annotated[TreeQuery, Query()]) -> Response:
    """List a directory of a backup, by name."""
    found, path = backup_meant(call, backup), _path(asked.path)
    after = None if asked.cursor is None else _name(asked.cursor)
    with call.backing.browsing.repository() as repository:
        manifest = repository.snapshots.get(found.id)
        entries = (one for one in list_entries(repository, manifest, path) if after is None or one.node.name > after)
        shown = list(islice(entries, asked.limit + 1))
    following = _cursor(shown[asked.limit - 1]) if len(shown) > asked.limit else None
    return page([entry_document(one) for one in shown[: asked.limit]], following)


@section.get(
    "/api/backup/{backup}/download",
    needs="restore:execute",
    answers={"type": "string", "format": "binary"},
    media_type="application/octet-stream",
    refuses=(404, 409),
    does="backup.download",
    slow=True,
)
def download(call: Caller, backup: Ident, asked: Annotated[FileQuery, Query()]) -> Response:
    """Give one file of a backup. `Repr-Digest` is its SHA-256, as it was when it was backed up."""
    found, path = backup_meant(call, backup), _path(asked.path)
    call.about(f"backup/{found.id}", path=asked.path)
    held = ExitStack()
    try:
        repository = held.enter_context(call.backing.downloads.repository_for(call.principal.user_id))
        manifest = repository.snapshots.get(found.id)
        node, _ = subtree(manifest.root, path, repository.reader)
        data = open_file(repository, manifest, path, wait=False)
        assert node is not None  # else it is no file, which was told
        headers = {
            "Content-Length": str(node.size),
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(node.name, safe='')}",
        }
        if node.sha256 is not None:
            headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(node.sha256).decode()}:"
        return StreamingResponse(_Piecewise(held, data), headers=headers, media_type="application/octet-stream")
    except BaseException:
        held.close()
        raise


class _Piecewise:
    """The bytes of a file; the repository is given back after the last one, or when nobody reads on."""

    def __init__(self, held: ExitStack, data: Iterator[bytes | bytearray | memoryview]) -> None:
        self._held, self._data = held, data

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return bytes(next(self._data))
        except BaseException:
            self._held.close()
            raise

    def __del__(self) -> None:
        self._held.close()


@section.get(
    "/api/backup/{backup}/diff/{other}",
    needs="restore:plan",
    answers=PageOf[DifferenceDocument],
    refuses=(404,),
    does="backup.diff",
    slow=True,
)
def diff_backups(call: Caller, backup: Ident, other: Ident, asked: Annotated[Paged, Query()]) -> Response:
    """Tell what changed from one backup to another; parts that are equal are not even read."""
    old, new = backup_meant(call, backup), backup_meant(call, other)
    call.about(f"backup/{old.id}", other=new.id)
    passed = 0 if asked.cursor is None else _count(asked.cursor)
    with call.backing.browsing.repository() as repository:
        before, after = repository.snapshots.get(old.id), repository.snapshots.get(new.id)
        shown = list(islice(diff(repository, before, after), passed, passed + asked.limit + 1))
    following = str(passed + asked.limit) if len(shown) > asked.limit else None
    return page([difference_document(one) for one in shown[: asked.limit]], following)


def _path(text: str) -> bytes:
    """A path of a backup, without `.` and `..`: nothing is stored under such names."""
    parts = [part for part in text.split("/") if part]
    if any(part in (".", "..") for part in parts):
        raise InvalidRequest("path cannot be so", cause="it has `.` or `..` in it", hint="write the whole path")
    return os.fsencode("/" + "/".join(parts))


def _cursor(found: Found) -> str:
    return base64.urlsafe_b64encode(found.node.name).decode().rstrip("=")


def _name(cursor: str) -> bytes:
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error) as error:
        raise InvalidRequest("cursor cannot be so", cause="it is not one that this list gave") from error


def _count(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
        raise InvalidRequest("cursor cannot be so", cause="it is not one that this list gave")
    return int(cursor)
