"""The report of a recovery in a file, which replaces at most an older report."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Final

from backstay.errors import InvalidRequest
from backstay.errors.results import not_written, require_directory

_LARGEST: Final = 64 << 20
_MARKS: Final = frozenset({"plan", "digest", "program", "rto_s", "critical_path", "steps"})


def require_report_place(path: Path, *others: Path) -> None:
    """Raises InvalidRequest, before hours of work, where a report has no place or would replace what is no report."""
    if any(path.resolve() == other.resolve() for other in others):
        raise _refused(path, "that is the plan, or where is noted what is done")
    require_directory("the report", path)
    try:
        is_another = path.is_file() and not _is_report(path)
    except OSError as error:
        raise not_written("the report", path, error) from error
    if is_another:
        raise _refused(path, "it is there, and no report of a recovery")


def write_report(path: Path, text: str) -> None:
    """A file appears whole, and an older report stays until then. Raises InvalidRequest, InsufficientSpace."""
    place = path.resolve()
    new = place.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    try:
        if place.exists() and not place.is_file():  # a pipe, or a terminal
            place.write_text(text)
            return
        try:
            with new.open("x") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(place)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        raise not_written("the report", path, error) from error


def _is_report(path: Path) -> bool:
    """Whether a file is one, or empty and so nobody's loss. Raises OSError."""
    with path.open("rb") as file:
        data = file.read(_LARGEST)
    if not data:
        return True
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() >= _MARKS


def _refused(path: Path, cause: str) -> InvalidRequest:
    return InvalidRequest(
        f"the report cannot be written to {path}", cause=cause, hint="name another file with --report"
    )
