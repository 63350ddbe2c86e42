"""Finds repo.json, and the root key that a secret unlocks."""

from __future__ import annotations

from backstay.codec.digest import sha256
from backstay.errors import BackstayError, CorruptedBackup, NoRepository, ObjectNotFound, StorageMissing, WrongKey
from backstay.repository.format import REPO, RepoHeader
from backstay.repository.keys.slots import SlotStore
from backstay.storage.backend import StorageBackend
from backstay.storage.copies import retrieve_valid
from backstay.trust.secrets import Secret
from backstay.trust.slots import unwrap


def has_header(backend: StorageBackend) -> bool:
    """Whether there is a repository."""
    try:
        return backend.exists(REPO)
    except StorageMissing:
        return False  # `create` makes the place with its first object


def read_header(backend: StorageBackend, secret: Secret) -> tuple[RepoHeader, bytes]:
    """(repo.json, root key), from the first copy of repo.json that a key slot was made for.

    Raises NoRepository, WrongKey, CorruptedBackup, UnsupportedFormat.
    """
    try:
        return retrieve_valid(backend, REPO, lambda encoded: _opened(backend, secret, encoded))
    except (ObjectNotFound, StorageMissing) as error:
        raise NoRepository(f"there is no repository at {backend.url}", cause=str(error)) from error


def _opened(backend: StorageBackend, secret: Secret, encoded: bytes) -> tuple[RepoHeader, bytes]:
    return RepoHeader.decode(encoded), _unlock(backend, secret, sha256(encoded))


def _unlock(backend: StorageBackend, secret: Secret, header: bytes) -> bytes:
    """The root key, from whichever slot the secret opens."""
    damaged: BackstayError | None = None
    tried = 0
    for name, slot in SlotStore.read_all(backend):
        tried += 1
        if isinstance(slot, BackstayError):
            damaged = slot
            continue
        try:
            opened = unwrap(slot, secret)
        except CorruptedBackup as error:  # another slot may still open
            damaged = error
            continue
        if opened is not None and opened[1] == header:
            return opened[0]
        if opened is not None:
            damaged = CorruptedBackup("repo.json was changed", cause=f"it is not the one that {name} was made for")
    if damaged is not None:
        raise damaged
    raise WrongKey(
        f"the {_told(secret)} does not open the repository at {backend.url}",
        cause=f"{tried} secrets open it, and this is none of them" if tried > 1 else "another secret opens it",
    )


def _told(secret: Secret) -> str:
    return {"passphrase": "password", "keyfile": "key file", "recovery": "recovery key"}[secret.kind]
