"""Which names an object may have, the same for every backend."""

from __future__ import annotations

import re
from typing import Final

from backstay.errors import InvalidRequest

TEMPORARY: Final = ".tmp-"  # how names of unfinished stores begin; no object may look like one
MAX_NAME: Final = 1024  # what S3 allows, the narrowest of the common stores
_COMPONENT: Final = r"(?!\.\.?(?:/|\Z))(?!\.tmp-)[A-Za-z0-9._-]{1,255}"
_NAME: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_PREFIX: Final = re.compile(rf"(?:{_COMPONENT}/)*[A-Za-z0-9._-]{{0,255}}\Z")
_ONE: Final = re.compile(rf"{_COMPONENT}\Z")
_HINT: Final = "use ASCII letters, digits, '.', '-', '_' and single '/' between parts"


def check_name(name: str) -> None:
    """Refuse what could leave the store's directory, or be read differently by another store. InvalidRequest."""
    if len(name) > MAX_NAME or not _NAME.match(name):
        raise InvalidRequest(f"{name!r} is not a name for an object", hint=_HINT)


def check_prefix(prefix: str) -> None:
    """Refuse what no name can begin with; the empty prefix and one that ends in `/` are fine. InvalidRequest."""
    if len(prefix) > MAX_NAME or not _PREFIX.match(prefix):
        raise InvalidRequest(f"{prefix!r} cannot begin the name of an object", hint=_HINT)


def check_range(start: int, length: int | None) -> None:
    """Refuse a range that is none. InvalidRequest."""
    if start < 0 or (length is not None and length < 0):
        raise InvalidRequest(f"there is no range of {length} bytes at {start}", hint="start and length count from 0")


def is_component(text: str) -> bool:
    """Whether a file or directory of this name can be part of an object's name."""
    return _ONE.match(text) is not None


def is_temporary(name: str) -> bool:
    """Whether a file is what a store works with, not an object."""
    return name.rpartition("/")[2].startswith(TEMPORARY)
