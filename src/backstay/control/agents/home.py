"""The directory of an agent on its host: its key and certificate, and which server it belongs to. For its owner alone.

`agent.pem` holds key and certificate in one file, so that they change together; `server.json` the server's address, the
agent's name there is none of: that the certificate says; and the authority that signed the server's certificate, if one
was pinned. `joining.pem` is the key that a join token was or will be used for.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from backstay.control.opening.key_files import write_secret_file
from backstay.core.durable_names import sync_directory
from backstay.errors import InvalidRequest, JobConflict, NotFound
from backstay.trust.certificate_requests import validity_of

IDENTITY: Final = "agent.pem"
SERVER: Final = "server.json"
JOINING: Final = "joining.pem"
_MOST_BYTES: Final = 4 << 20  # some systems have half a million bytes of authorities in one file
_CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----"


class Belonging(msgspec.Struct, frozen=True, kw_only=True):
    """Which server an agent belongs to; `authority` is in PEM, None where the system's authorities are believed."""

    server: str
    authority: str | None = None


@dataclass(frozen=True, slots=True)
class Home:
    """An agent's directory."""

    path: Path

    @classmethod
    def prepare(cls, path: Path) -> Home:
        """The directory, made if it is not there. Raises InvalidRequest."""
        with _usable(path):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return cls(path).checked()

    def checked(self) -> Home:
        """The same, if nobody else can look into it. Raises InvalidRequest, NotFound."""
        with _usable(self.path):
            try:
                mode = self.path.stat().st_mode
            except FileNotFoundError as error:
                raise _not_joined(self.path) from error
        if not stat.S_ISDIR(mode) or mode & 0o077:
            raise InvalidRequest(
                f"the directory {self.path} of the agent is not safe",
                cause="others could look into it, and be this agent",
                hint=f"chmod 700 {self.path}, after a look at what lies there",
            )
        return self

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, no other process of this host is this agent. Raises JobConflict, InvalidRequest."""
        with _usable(self.path):
            fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise JobConflict(
                    f"another process is the agent of {self.path}",
                    cause="it holds the lock of this directory",
                    hint="stop it, or name another --dir",
                ) from None
            yield
        finally:
            os.close(fd)

    # -- what it holds

    @property
    def identity(self) -> Path:
        """The file with key and certificate."""
        return self.path / IDENTITY

    def belonging(self) -> Belonging:
        """The server. Raises NotFound where nobody has joined, InvalidRequest for a file that is damaged."""
        text = self._read(SERVER)
        if text is None or self._read(IDENTITY) is None:
            raise _not_joined(self.path)
        try:
            return msgspec.json.decode(text, type=Belonging)
        except msgspec.MsgspecError as error:
            raise InvalidRequest(f"{self.path / SERVER} is damaged", cause=str(error), hint="join again") from error

    def validity(self) -> tuple[datetime, datetime]:
        """From when until when the certificate is valid. Raises NotFound, InvalidRequest."""
        text = self._read(IDENTITY)
        if text is None:
            raise _not_joined(self.path)
        return validity_of(text[max(text.find(_CERTIFICATE), 0) :])

    def joining(self) -> str | None:
        """The key and the request of a join that has not ended."""
        return self._read(JOINING)

    def begin_joining(self, key_and_request: str) -> None:
        """Keep the key of a join before anybody hears of it."""
        self._replace(JOINING, key_and_request)

    def renewed(self, key: str, certificate: str) -> None:
        """Put a new key and certificate in the place of the old ones, which stay valid until they end."""
        self._replace(IDENTITY, key + certificate)

    def joined(self, key: str, certificate: str, belonging: Belonging) -> None:
        """Keep what a join gave.

        Order: identity, then the server, then the key of the join goes. After a crash before the last step the same
        join can be done again, for the same key.
        """
        self.renewed(key, certificate)
        self._replace(SERVER, msgspec.json.encode(belonging).decode())
        with _usable(self.path):
            (self.path / JOINING).unlink(missing_ok=True)
            sync_directory(self.path)

    def _read(self, name: str) -> str | None:
        path = self.path / name
        with _usable(path):
            try:
                with path.open("rb") as file:
                    return file.read(_MOST_BYTES).decode("utf-8", "replace")
            except FileNotFoundError:
                return None

    def _replace(self, name: str, text: str) -> None:
        beside = self.path / f".{name}.new"
        with _usable(self.path):
            for left in self.path.glob(f"*.{name}.new*"):  # by processes that were killed: the lock says they are gone
                left.unlink(missing_ok=True)
            write_secret_file(beside, text)
            beside.replace(self.path / name)
            sync_directory(self.path)


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidRequest(
            f"{path} cannot be used by the agent",
            cause=error.strerror or str(error),
            hint="give --dir a directory that this user may write to",
        ) from error


def _not_joined(path: Path) -> NotFound:
    return NotFound(
        f"no agent has joined in {path}",
        cause="there is no certificate of one",
        hint="let an administrator run `backstay agent invite NAME`, then run `backstay agent join` here",
    )
