"""The host keys that known_hosts names, read and matched as OpenSSH does it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import asyncssh


class KnownHosts(asyncssh.SSHKnownHosts):
    """Entries of one or more files. What is no entry is skipped, and told."""

    @classmethod
    def read(cls, files: Iterable[Path], *, warn: Callable[[str], None]) -> KnownHosts:
        known = cls()
        for file in files:
            for number, line in enumerate(file.read_bytes().split(b"\n"), 1):
                try:
                    known.load(line.decode("ascii", "backslashreplace"))  # a key is ASCII, its comment need not be
                except ValueError:
                    warn(f"line {number} of {file} is no entry for a host, and is skipped")
        return known

    def match(self, host: str, addr: str, port: int | None) -> Any:  # noqa: ANN401 - a tuple of asyncssh's own kinds
        """As the base: an entry without a port counts where none names the port; but what is revoked there stays so."""
        keys, authorities, revoked, certificates, revoked_certificates, names, revoked_names = super().match(
            host, addr, port
        )
        for place in filter(None, (host, addr) if port else ()):
            _, _, more, _, more_certificates, _, more_names = super().match(f"[{place}]:{port}", "", None)
            revoked = [*revoked, *more]
            revoked_certificates = [*revoked_certificates, *more_certificates]
            revoked_names = [*revoked_names, *more_names]
        return keys, authorities, revoked, certificates, revoked_certificates, names, revoked_names
