"""The directory for disposable data."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from backstay.core.environment import cache_directory
from backstay.errors import InvalidRequest

TAG: Final = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This directory holds a cache of backstay, which backups may leave out (see bford.info/cachedir).\n"
)
_PROBE: Final = bytes(64 << 10)  # what an empty cache needs at least


def usable_cache(environ: Mapping[str, str], warn: Callable[[str], None]) -> Path | None:
    """The directory for disposable data, or None when it cannot be used."""
    try:
        directory = cache_directory(environ)
    except InvalidRequest as error:
        warn(f"working without a cache: {error}; {error.hint}")
        return None
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=directory) as probe:
            probe.write(_PROBE)
        if not (tag := directory / "CACHEDIR.TAG").exists():
            tag.write_text(TAG)
    except OSError as error:
        warn(f"working without a cache: {directory}: {error.strerror}")
        return None
    return directory
