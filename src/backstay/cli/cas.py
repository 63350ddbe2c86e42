"""`cas`: bytes and JSON values under their SHA-256."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from backstay.cli.context import context_of
from backstay.cli.options import argument, flag, option
from backstay.cli.render import local_time, out
from backstay.core.quantities import format_size, plural
from backstay.errors import InvalidRequest, RestoreConflict
from backstay.errors.results import not_written

if TYPE_CHECKING:
    from backstay.repository.cas import ContentAddressableStorage
    from backstay.repository.repository import Repository

_KEY_HELP = "The id of a value: sha256: and 64 digits, or the digits alone."
_ABSENT = 1  # exit status of `exists`


def _values(repository: Repository) -> ContentAddressableStorage:
    from backstay.repository.cas import ContentAddressableStorage

    return ContentAddressableStorage(repository)


def store(
    ctx: typer.Context,
    files: Annotated[list[Path] | None, argument("FILE", "What to store; - or none: standard input.")] = None,
    as_json: Annotated[bool, flag("Take each for a JSON value, and store its canonical form.", "--as-json")] = False,
    metadata: Annotated[str | None, option("JSON", "A JSON object to keep beside each value.")] = None,
    base: Annotated[str | None, option("ID", "A value that they are new versions of.")] = None,
) -> int:
    """Store files as values, all together; their ids are printed, in the order of the files."""
    from backstay.codec.canonical_json import parse_given

    context = context_of(ctx)
    beside = None if metadata is None else parse_given(os.fsencode(metadata), what="the metadata")
    if metadata is not None and not isinstance(beside, dict):
        raise InvalidRequest(
            "the metadata is no JSON object",
            cause="it is another JSON value",
            hint="""write names and values, such as --metadata '{"year": 2026}'""",
        )
    with context.open(grows=True) as repository:
        values = _values(repository)
        with values.batch() as batch:
            keys = []
            for file in files or [Path("-")]:
                content = sys.stdin.buffer if str(file) == "-" else file
                if as_json:
                    content = parse_given(_read(content), what=str(file))
                keys.append(batch.store(content, beside, base=base))

    def show() -> None:
        for key in keys:
            out(key)

    context.result([{"id": key} for key in keys], show)
    return 0


def _read(file: Path | BinaryIO) -> bytes:
    from backstay.repository.values.content import pieces_of

    return b"".join(pieces_of(file)[0])


def retrieve(
    ctx: typer.Context,
    key: Annotated[str, argument("ID", _KEY_HELP)],
    to: Annotated[Path | None, option("FILE", "Write it to a new file, and not to standard output.")] = None,
) -> int:
    """Write the bytes of a value to standard output."""
    context = context_of(ctx)
    if context.json and to is None:
        raise InvalidRequest(
            "retrieve has no JSON form", cause="it writes the bytes of the value", hint="leave --json out, or give --to"
        )
    with context.open() as repository:
        pieces = _values(repository).open(key)
        if to is None:
            for piece in pieces:
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            return 0
        size = _write(to, pieces)
    context.result({"id": key, "bytes": size}, lambda: context.say(f"{format_size(size)} written to {to}"))
    return 0


def _write(to: Path, pieces: Iterable[bytes]) -> int:
    """Write to a new file; one that cannot be written whole is removed. Its size in bytes."""
    size = 0
    try:
        with to.open("xb") as file:
            try:
                for piece in pieces:
                    size += file.write(piece)
            except BaseException:
                to.unlink()
                raise
    except FileExistsError as error:
        raise RestoreConflict(f"{to} exists already", cause="no file is overwritten", hint="name another") from error
    except OSError as error:
        raise not_written("the value", to, error) from error
    return size


def exists(ctx: typer.Context, key: Annotated[str, argument("ID", _KEY_HELP)]) -> int:
    """Tell whether a value is there: exit status 0 if it is, 1 if not."""
    context = context_of(ctx)
    with context.open() as repository:
        is_there = _values(repository).exists(key)
    told = "it is there" if is_there else "it is not there"
    context.result({"id": key, "exists": is_there}, lambda: context.say(told))
    return 0 if is_there else _ABSENT


def delete(
    ctx: typer.Context,
    keys: Annotated[list[str], argument("ID", _KEY_HELP)],
    force: Annotated[bool, flag("Delete them also while snapshots refer to them.", "--force")] = False,
) -> int:
    """Delete values; refused while a snapshot refers to one. Space is free after a fold and `gc`."""
    context = context_of(ctx)
    with context.open() as repository:
        values = _values(repository)
        deleted = [key for key in keys if values.delete(key, force=force)]
    document = {"deleted": deleted, "absent": [key for key in keys if key not in deleted]}
    context.result(document, lambda: context.say(f"{plural(len(deleted), 'value')} deleted"))
    return 0


def list_values(ctx: typer.Context) -> int:
    """List the ids of all values."""
    context = context_of(ctx)
    with context.open() as repository:
        keys = _values(repository).list()
        if context.json:
            context.result([*keys], lambda: None)
            return 0
        for key in keys:
            sys.stdout.write(f"{key}\n")
    return 0


def info(ctx: typer.Context, key: Annotated[str, argument("ID", _KEY_HELP)]) -> int:
    """Show size, age and metadata of a value."""
    context = context_of(ctx)
    with context.open() as repository:
        found = _values(repository).info(key)

    def show() -> None:
        out(found.id)
        out(f"{format_size(found.size)}{' of JSON' if found.is_json else ''}, stored {local_time(found.stored)}")
        for name, value in found.metadata.items():
            out(f"{name}: {value}")

    context.result(found, show)
    return 0


def fold(
    ctx: typer.Context,
    accept_loss: Annotated[
        bool, flag("Give up for good what a damaged log cannot tell any more.", "--accept-loss")
    ] = False,
) -> int:
    """Make one snapshot of all values, as happens by itself when their log is long."""
    context = context_of(ctx)
    with context.open() as repository:
        done = _values(repository).fold(accept_loss=accept_loss)
    told = "there was nothing to fold" if done is None else f"{plural(done.values, 'value')} in one snapshot"
    context.result(done, lambda: context.say(told))
    return 0
