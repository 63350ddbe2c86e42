"""Which stores may be the cold tier of a repository: those in which nobody else looks after packs."""

from __future__ import annotations

from typing import Final

from backstay.errors import InvalidRequest, StorageMissing
from backstay.repository.format import MEDIUM, REPO
from backstay.storage.backend import StorageBackend

_KEYS: Final = "keys/"


def require_no_repository(cold: StorageBackend) -> None:
    """Raises InvalidRequest for a store that is a repository, a copy, a medium, or has the beginnings of one.

    The repository itself is one too, however its address is spelt: a move would take away what it had just found there.
    Before each move this is asked again, since a mount or a link may lead elsewhere than when the tier was set.
    """
    if found := _signs(cold):
        raise InvalidRequest(
            f"{cold.url} cannot be a cold tier",
            cause=f"it holds {found}, as a repository does, and perhaps is this one under another name",
            hint="name an empty directory or prefix with `backstay tier set --cold ADDRESS`; if packs were moved here "
            "already, bring them back before with `backstay tier recall`",
        )


def _signs(store: StorageBackend) -> str:
    try:
        found = next(filter(store.exists, (REPO, MEDIUM)), "")
        return found or (_KEYS if any(store.list(_KEYS)) else "")
    except StorageMissing:  # the place is made with the first object
        return ""
