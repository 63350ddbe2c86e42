"""Creating repositories from the command line: a recovery key is printed, once."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from backstay.cli import secrets
from backstay.cli.render import UNWRITABLE, err, safe, write_err
from backstay.control.opening import creation
from backstay.errors import BackstayError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from backstay.cli.context import Context
    from backstay.codec.compression import Compressor
    from backstay.control.opening.location import Location
    from backstay.repository.repository import Repository
    from backstay.storage.backend import StorageBackend
    from backstay.trust.secrets import Secret


def create(context: Context, location: Location) -> str:
    """Create a repository for `init`; its uuid. Raises RepositoryExists."""

    def ask() -> Secret:
        return secrets.secret_of(secrets.ask_twice(f"password for {location.address}: "))

    return creation.create(_Around(context, last=True), location, ask)


def ensure_default(context: Context, location: Location) -> None:
    """Before a backup: create the default repository, or that of a policy file, if there never was one.

    Raises NoRepository when it existed once: an unmounted disk must not get a second one.
    """
    creation.ensure(_Around(context), location)


def show_new_recovery(context: Context, repository: Repository) -> str:
    """Add a recovery key and print it; the slot's id. Nothing may stop it between: nobody would have seen the key.

    Raises BackstayError when it cannot be printed, and adds none then.
    """
    slot, words = _add_recovery(context, repository)
    try:
        _print_recovery_key(words)
    except BackstayError:
        repository.slots.remove(slot, context.clock)
        raise
    return slot


def _add_recovery(context: Context, repository: Repository) -> tuple[str, str]:
    """A new recovery key: (the slot's id, the key as it is written down)."""
    from backstay.trust.secrets import Secret

    secret = Secret.new_recovery()
    created = context.clock.now().isoformat(timespec="seconds")
    slot = repository.slots.add(secret, repository.header_digest, note="recovery key", created=created)
    return slot, secret.printed()


def _print_recovery_key(words: str) -> None:
    """Show a recovery key, this once, on stderr: stdout may go into a file or a pipe.

    Raises BackstayError when it cannot be shown.
    """
    lines = (
        "",
        f"    Recovery key:  {words}",
        "",
        "Write it down and keep it away from this machine: when this disk is lost, it is all that",
        "opens the backups. It is not shown again; `backstay key recovery` makes another one.",
        "",
    )
    try:
        write_err("".join(safe(line) + "\n" for line in lines))
    except UNWRITABLE as error:
        raise BackstayError(
            "the recovery key cannot be shown",
            cause=f"standard error cannot be written: {getattr(error, 'strerror', None) or error}",
            hint="let standard error go to a terminal or a file with room, and run the same command again",
        ) from error


@dataclass(frozen=True, slots=True)
class _Around:
    """The command as the room sees it that creates repositories; `last`: nothing follows that could be stopped."""

    context: Context
    last: bool = False

    @property
    def compressor(self) -> Compressor | None:
        return self.context.compressor

    @property
    def copies(self) -> Sequence[str]:
        return self.context.mirror or ()

    def given_secret(self) -> Secret | None:
        return self.context.given_secret()

    def backend(self, address: str, *, mirrors: Sequence[str] = (), create: bool = False) -> StorageBackend:
        return self.context.backend(address, mirrors=mirrors, create=create)

    @contextmanager
    def unstopped(self) -> Iterator[None]:
        if self.last:
            self.context.interrupts.too_late()
            yield
            return
        with self.context.interrupts.deferred() as stop_if_asked:
            yield
            stop_if_asked()

    def warn(self, text: str, /) -> None:
        self.context.warn(text)

    def made(self, repository: Repository, location: Location, key_file: Path | None) -> None:
        err(f"Created a repository in {location.address}")
        if key_file is not None:
            err(f"Its key lies in {key_file}")
        show_new_recovery(self.context, repository)
