"""The file of the agents' authority: `authority.pem` in the data directory, which only its owner can read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from backstay.control.opening.key_files import write_secret_file
from backstay.core.clock import Clock
from backstay.errors import InvalidRequest
from backstay.trust.authority import Authority

FILE: Final = "authority.pem"
_MOST_BYTES: Final = 64 << 10


def open_authority(data_directory: Path, clock: Clock) -> Authority:
    """The authority of a data directory, made if it is not there: durable before it signs anything.

    Of two processes that make one at once, both use the one that came first. Raises InvalidRequest.
    """
    path = data_directory / FILE
    if not path.exists():
        made = Authority.generate(clock)
        try:
            write_secret_file(path, made.printed())
        except InvalidRequest:
            if not path.exists():
                raise
        else:
            return made
    return Authority.parse(_read(path))


def _read(path: Path) -> str:
    """The text of a file that others cannot read. Raises InvalidRequest."""
    title = f"cannot read {path}"
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise InvalidRequest(title, cause="others could read it too", hint=f"chmod 600 {path}")
            return file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise InvalidRequest(title, cause=error.strerror or str(error), hint="check its owner and mode") from error
