"""Evidence in files: written as JSON or as a page, read and checked without a repository or a key."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backstay.control.evidence.page import as_html, sealed_in
from backstay.control.evidence.seal import LARGEST, Evidence, opened, read_json
from backstay.core.version import VERSION
from backstay.errors import CorruptedBackup, InvalidRequest
from backstay.errors.results import not_written, require_directory

_PAGES: Final = (".html", ".htm")
_JSON: Final = ".json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Evidence that is what was sealed; `page_matches` says whether a page shows that and nothing else."""

    evidence: Evidence
    page_matches: bool | None = None


def require_form(path: Path) -> None:
    """Raises InvalidRequest, before hours of work, for a name that says no form, a directory that is not there, and a
    file that is there and no evidence.
    """
    if path.suffix.lower() not in (*_PAGES, _JSON):
        raise InvalidRequest(
            f"it is not clear what to write into {path}",
            cause="evidence is written as a page or as JSON",
            hint="let the name end with .html or .json",
        )
    require_directory("the evidence", path)
    try:
        is_another = path.is_file() and not _is_evidence(path)
    except OSError as error:
        raise not_written("the evidence", path, error) from error
    if is_another:
        raise InvalidRequest(
            f"the evidence cannot be written to {path}",
            cause="it is there, and no evidence of a verification",
            hint="name another file",
        )


def write(evidence: Evidence, path: Path) -> None:
    """As a page if the name ends with .html, as JSON if with .json. Raises InvalidRequest, InsufficientSpace.

    The file appears whole: a crash leaves none, or one whose name ends with `.new`.
    """
    require_form(path)
    data = evidence.as_json() if path.suffix.lower() == _JSON else as_html(evidence).encode()
    new = path.with_name(f"{path.name}.new")
    try:
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        with suppress(OSError):  # what failed first says more
            new.unlink()
        raise not_written("the evidence", path, error) from error


def check(path: Path, *, trusted: Collection[str] | None = None) -> Checked:
    """Read a file of either form.

    Raises CorruptedBackup for what was changed, InvalidRequest for what is no evidence.
    """
    data = _read(path)
    if not data.lstrip().startswith(b"<"):
        return Checked(evidence=opened(_json(data), trusted=trusted))
    evidence = opened(sealed_in(data), trusted=trusted)
    matches = as_html(evidence).encode() == data
    if not matches and f"backstay {VERSION}" == evidence.report["program"]:
        raise CorruptedBackup(
            "this page does not show what was sealed",
            cause="the report in it is genuine, the text around it was changed",
            hint="get the file again from where it was made; do not rely on this one",
        )
    return Checked(evidence=evidence, page_matches=matches)


def _is_evidence(path: Path) -> bool:
    """Whether a file is some, if only what was changed since, or is empty and so nobody's loss."""
    if not path.stat().st_size:
        return True
    try:
        check(path)
    except CorruptedBackup:
        return True
    except InvalidRequest:
        return False
    return True


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise InvalidRequest(
            f"{path} cannot be read", cause=(error.strerror or str(error)).lower(), hint="name a file of evidence"
        ) from error
    if len(data) > LARGEST:
        raise InvalidRequest(f"{path} is too large for evidence", cause=f"it has more than {LARGEST} bytes")
    return data


def _json(data: bytes) -> object:
    try:
        return read_json(data)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            "this is no evidence of a verification",
            cause=f"it is no JSON: {error}",
            hint="`backstay verify --evidence FILE` writes such files",
        ) from error
