"""Creating repositories: on purpose, and the default one and those of policy files by the first backup."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from backstay.control.opening.key_files import make_directory, unfinished, write_secret_file
from backstay.control.opening.location import Location
from backstay.control.opening.secrets import read_key_file
from backstay.core.durable_names import sync_directory
from backstay.errors import NoRepository, RepositoryExists, StorageMissing

if TYPE_CHECKING:
    from backstay.codec.compression import Compressor
    from backstay.repository.repository import Repository
    from backstay.storage.backend import StorageBackend
    from backstay.trust.secrets import Secret


class Around(Protocol):
    """What whoever creates a repository has: its store, what opens it, and somebody to tell.

    `made` is told of a new repository while its key file, if it has one, still has its unfinished name: what it does
    is done at least once. Within `unstopped` nobody who asks to stop is heard: a repository or a key that nobody knows
    of would be left.
    """

    @property
    def compressor(self) -> Compressor | None: ...
    @property
    def copies(self) -> Sequence[str]: ...

    def given_secret(self) -> Secret | None: ...
    def backend(self, address: str, *, mirrors: Sequence[str] = (), create: bool = False) -> StorageBackend: ...
    def made(self, repository: Repository, location: Location, key_file: Path | None) -> None: ...
    def unstopped(self) -> AbstractContextManager[None]: ...
    def warn(self, text: str, /) -> None: ...


def create(around: Around, location: Location, ask: Callable[[], Secret]) -> str:
    """Create a repository on purpose; its uuid. Without a secret one is made into a key file, or asked for.

    Raises RepositoryExists.
    """
    secret = around.given_secret()
    if secret is None and location.key_file is not None:
        with _alone(location.key_file.parent):
            _refuse_existing(around, location)
            return _create_with_key_file(around, location, location.key_file)
    _refuse_existing(around, location)
    secret = secret or ask()
    with around.unstopped():
        with _new(around, location, secret, note="created with the repository") as repository:
            uuid = repository.header.uuid
        _leave_mark(around, location)
    return uuid


def ensure(around: Around, location: Location) -> None:
    """Before a backup: create the default repository, or that of a policy file, if there never was one.

    Raises NoRepository when it existed once: an unmounted disk must not get a second one.
    """
    if location.key_file is None:
        return
    if _exists(around, location) and not unfinished(location.key_file).exists():
        _leave_mark(around, location)
        return
    with _alone(location.key_file.parent):
        _ensure(around, location, location.key_file)


def has_repository(backend: StorageBackend) -> bool:
    """Whether a repository lies in this store."""
    from backstay.repository.format import REPO

    try:
        return backend.exists(REPO)
    except StorageMissing:
        return False


def absent(location: Location, cause: str = "") -> NoRepository:
    """The error of a repository that is not there."""
    hint = f"`{location.made_by}` creates it" if location.key_file is not None else ""
    return NoRepository(
        f"there is no repository at {location.address}", cause=cause or "no repo.json lies there", hint=hint
    )


def _ensure(around: Around, location: Location, key_file: Path) -> None:
    exists = _exists(around, location)
    if exists and not unfinished(key_file).exists():
        return  # another first backup was faster
    left = key_file if key_file.exists() else location.mark
    if not exists and left is not None and left.exists():
        raise NoRepository(
            f"the repository is gone: {location.address}",
            cause=f"{left} of its first backup is there, but no repository",
            hint="mount the disk that holds it, or begin anew with `backstay init`",
        )
    secret = around.given_secret()
    if secret is None or exists:
        _create_with_key_file(around, location, key_file)
        return
    with around.unstopped():
        with _new(around, location, secret, note="created by the first backup") as repository:
            around.made(repository, location, None)
        _leave_mark(around, location)


def _leave_mark(around: Around, location: Location) -> None:
    """Note that there is a repository, where no key file may tell it.

    A crash before leaves a repository without the note; the next backup finds the one and leaves the other.
    """
    if location.mark is None or location.mark.exists():
        return
    try:
        location.mark.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        location.mark.write_text(f"{location.address}\n")
    except OSError as error:
        around.warn(f"it cannot be noted that there is a repository: {location.mark}: {error.strerror}")


def _create_with_key_file(around: Around, location: Location, key_file: Path) -> str:
    """Key file, repository, recovery key: in this order; the uuid.

    The key is durable under an unfinished name before anything is sealed with it, and gets its final name after the
    recovery key was printed: a run that stopped between is continued by the next one.
    """
    begun = unfinished(key_file)
    if key_file.exists():  # of an earlier repository that is gone
        key_file.rename(begun)
    secret = read_key_file(begun) if begun.exists() else _write_key_file(begun)
    with around.unstopped(), _new_or_begun(around, location, secret) as repository:
        around.made(repository, location, key_file)
        begun.rename(key_file)
        sync_directory(key_file.parent)
        return repository.header.uuid


def _refuse_existing(around: Around, location: Location) -> None:
    is_begun = location.key_file is not None and unfinished(location.key_file).exists()
    if _exists(around, location) and not is_begun:
        raise RepositoryExists(f"there is a repository at {location.address} already", cause="it holds a repo.json")


def _exists(around: Around, location: Location) -> bool:
    with around.backend(location.address) as backend:
        return has_repository(backend)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Let two first backups at once create one repository."""
    make_directory(directory)
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


def _new(around: Around, location: Location, secret: Secret, *, note: str) -> Repository:
    from backstay.repository.collection.reserve import set_aside
    from backstay.repository.repository import Repository

    backend = around.backend(location.address, mirrors=around.copies, create=True)
    made = Repository.create(backend, secret, note=note, compressor=around.compressor)
    set_aside(made)
    return made


def _new_or_begun(around: Around, location: Location, secret: Secret) -> Repository:
    """A new repository, or the one that an interrupted run had created with this secret."""
    from backstay.repository.repository import Repository

    if _exists(around, location):
        backend = around.backend(location.address, mirrors=around.copies)
        return Repository.open(backend, secret, compressor=around.compressor)
    return _new(around, location, secret, note="key file of the first backup")
