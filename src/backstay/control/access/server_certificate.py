"""A certificate for a server that was given none: `server.pem` in the data directory, by the agents' authority."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from backstay.control.opening.key_files import sync_directory, write_secret_file
from backstay.core.clock import Clock
from backstay.core.ids import Random
from backstay.errors import InvalidRequest
from backstay.trust.authority import Authority

FILE: Final = "server.pem"
LIFE: Final = timedelta(days=90)


def own_certificate(
    authority: Authority, data_directory: Path, hosts: Sequence[str], *, clock: Clock, random: Random
) -> Path:
    """A new certificate for these names and addresses, and its key, in a file that only its owner can read.

    Made at each start. The file is written beside the old one and takes its place: a crash between leaves either, and a
    file that nobody looks at. Raises InvalidRequest.
    """
    issued, key = authority.issue_server(hosts, clock=clock, life=LIFE)
    path = data_directory / FILE
    beside = path.with_name(f".{FILE}.{random(8).hex()}")
    write_secret_file(beside, key + issued.pem + authority.certificate)
    try:
        beside.replace(path)
        sync_directory(data_directory)
    except OSError as error:
        raise InvalidRequest(f"cannot write {path}", cause=error.strerror or str(error)) from error
    return path
