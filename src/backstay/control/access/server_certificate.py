"""A certificate for a server that was given none: `server.pem` in the data directory, by the agents' authority."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from backstay.control.opening.key_files import write_secret_file
from backstay.core.clock import Clock
from backstay.core.durable_names import sync_directory
from backstay.core.ids import Random
from backstay.errors import InvalidRequest
from backstay.trust.authority import Authority

FILE: Final = "server.pem"
LIFE: Final = timedelta(days=90)
_KEPT: Final = LIFE / 2  # after which it is made anew: a service may run for years


def own_certificate(
    authority: Authority, data_directory: Path, hosts: Sequence[str], *, clock: Clock, random: Random
) -> Path:
    """A new certificate for these names and addresses, and its key, in a file that only its owner can read.

    The file is written beside the old one and takes its place: a crash between leaves either, and a
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


class OwnCertificate:
    """The certificate of a server that runs: made at its start, and anew when half of its life is over."""

    def __init__(
        self, authority: Authority, data_directory: Path, hosts: Sequence[str], *, clock: Clock, random: Random
    ) -> None:
        """Makes it. Raises InvalidRequest."""
        self._authority, self._directory, self._hosts = authority, data_directory, tuple(hosts)
        self._clock, self._random = clock, random
        self.path = self._make()

    def renew(self) -> None:
        """Make it anew if it is time, also by a clock that was set since. Raises InvalidRequest."""
        if abs(self._clock.now() - self._made) >= _KEPT:
            self._make()

    def _make(self) -> Path:
        now = self._clock.now()
        path = own_certificate(self._authority, self._directory, self._hosts, clock=self._clock, random=self._random)
        self._made = now
        return path
