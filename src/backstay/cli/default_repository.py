"""Creating repositories: by `init`, and the default one and those of policy files by the first backup."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from backstay.cli import secrets
from backstay.cli.context import Context, Location, has_repository
from backstay.cli.render import err
from backstay.errors import InvalidRequest, NoRepository, RepositoryExists

if TYPE_CHECKING:
    from backstay.repository.repository import Repository
    from backstay.trust.secrets import Secret


def create(context: Context, location: Location) -> str:
    """Create a repository for `init`; its uuid. Raises RepositoryExists."""
    secret = context.given_secret()
    if secret is None and location.key_file is not None:
        with _alone(location.key_file.parent):
            _refuse_existing(context, location)
            return _create_with_key_file(context, location, location.key_file)
    _refuse_existing(context, location)
    if secret is None:
        secret = secrets.secret_of(secrets.ask_twice(f"password for {location.address}: "))
    with _new(context, location, secret, note="created with the repository") as repository:
        uuid = repository.header.uuid
    _leave_mark(context, location)
    return uuid


def ensure_default(context: Context, location: Location) -> None:
    """Before a backup: create the default repository, or that of a policy file, if there never was one.

    Raises NoRepository when it existed once: an unmounted disk must not get a second one.
    """
    if location.key_file is None:
        return
    if _exists(context, location) and not _unfinished(location.key_file).exists():
        _leave_mark(context, location)
        return
    with _alone(location.key_file.parent):
        _create_default(context, location, location.key_file)


def _create_default(context: Context, location: Location, key_file: Path) -> None:
    exists = _exists(context, location)
    if exists and not _unfinished(key_file).exists():
        return  # another first backup was faster
    left = key_file if key_file.exists() else location.mark
    if not exists and left is not None and left.exists():
        raise NoRepository(
            f"the repository is gone: {location.address}",
            cause=f"{left} of its first backup is there, but no repository",
            hint="mount the disk that holds it, or begin anew with `backstay init`",
        )
    secret = context.given_secret()
    if secret is None or exists:
        _create_with_key_file(context, location, key_file)
        return
    with _new(context, location, secret, note="created by the first backup") as repository:
        _print_recovery(context, repository, location, None)
    _leave_mark(context, location)


def _leave_mark(context: Context, location: Location) -> None:
    """Note that there is a repository, where no key file may tell it.

    A crash before leaves a repository without the note; the next backup finds the one and leaves the other.
    """
    if location.mark is None or location.mark.exists():
        return
    try:
        location.mark.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        location.mark.write_text(f"{location.address}\n")
    except OSError as error:
        context.warn(f"it cannot be noted that there is a repository: {location.mark}: {error.strerror}")


def _create_with_key_file(context: Context, location: Location, key_file: Path) -> str:
    """Key file, repository, recovery key: in this order; the uuid.

    The key is durable under an unfinished name before anything is sealed with it, and gets its final name after the
    recovery key was printed: a run that stopped between is continued by the next one.
    """
    unfinished = _unfinished(key_file)
    if key_file.exists():  # of an earlier repository that is gone
        key_file.rename(unfinished)
    secret = secrets.read_key_file(unfinished) if unfinished.exists() else _write_key_file(unfinished)
    with _new_or_begun(context, location, secret) as repository:
        _print_recovery(context, repository, location, key_file)
        unfinished.rename(key_file)
        _sync_directory(key_file.parent)
        return repository.header.uuid


def _refuse_existing(context: Context, location: Location) -> None:
    unfinished = location.key_file is not None and _unfinished(location.key_file).exists()
    if _exists(context, location) and not unfinished:
        raise RepositoryExists(f"there is a repository at {location.address} already", cause="it holds a repo.json")


def _exists(context: Context, location: Location) -> bool:
    with context.assembled(location.address) as backend:
        return has_repository(backend)


def _unfinished(key_file: Path) -> Path:
    return key_file.with_name(key_file.name + ".new")


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Let two first backups at once create one repository."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _write_key_file(path: Path) -> Secret:
    from backstay.trust.secrets import Secret

    secret = Secret.new_keyfile()
    write_secret_file(path, secret.printed())
    return secret


def write_secret_file(path: Path, text: str) -> None:
    """Write a new file that only its owner can read, durable on return. Raises InvalidRequest when it exists."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, text.encode() + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        try:
            os.link(temporary, path)
        finally:
            temporary.unlink()
        _sync_directory(path.parent)
    except OSError as error:
        raise InvalidRequest(
            f"cannot write the key file {path}", cause=error.strerror or str(error), hint="name a new file"
        ) from error


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _new(context: Context, location: Location, secret: Secret, *, note: str) -> Repository:
    from backstay.repository.repository import Repository
    from backstay.repository.reserve import set_aside

    backend = context.backend(location.address, mirrors=context.mirror or (), create=True)
    made = Repository.create(backend, secret, note=note, compressor=context.compressor)
    set_aside(made)
    return made


def _new_or_begun(context: Context, location: Location, secret: Secret) -> Repository:
    """A new repository, or the one that an interrupted run had created with this secret."""
    from backstay.repository.repository import Repository

    if _exists(context, location):
        backend = context.backend(location.address, mirrors=context.mirror or ())
        return Repository.open(backend, secret, compressor=context.compressor)
    return _new(context, location, secret, note="key file of the first backup")


def add_recovery(context: Context, repository: Repository) -> tuple[str, str]:
    """A new recovery key: (the slot's id, the key as it is written down)."""
    from backstay.trust.secrets import Secret

    secret = Secret.new_recovery()
    created = context.clock.now().isoformat(timespec="seconds")
    slot = repository.slots.add(secret, repository.header_digest, note="recovery key", created=created)
    return slot, secret.printed()


def print_recovery_key(words: str) -> None:
    """Show a recovery key, this once, on stderr: stdout may go into a file or a pipe."""
    for line in (
        "",
        f"    Recovery key:  {words}",
        "",
        "Write it down and keep it away from this machine: when this disk is lost, it is all that",
        "opens the backups. It is not shown again; `backstay key recovery` makes another one.",
        "",
    ):
        err(line)


def _print_recovery(context: Context, repository: Repository, location: Location, key_file: Path | None) -> None:
    err(f"Created a repository in {location.address}")
    if key_file is not None:
        err(f"Its key lies in {key_file}")
    print_recovery_key(add_recovery(context, repository)[1])
