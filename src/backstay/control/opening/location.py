"""Where a repository is, and what is known of how it came to be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Location:
    """A repository's address. `key_file` is set where the first backup creates the repository; `made_by` is how."""

    address: str
    key_file: Path | None = None
    made_by: str = "backstay backup PATH"
    mark: Path | None = None  # lies there once the repository was made with a password
