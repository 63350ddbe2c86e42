"""A local store that refuses to delete packs, as one under retention does."""

from __future__ import annotations

import pytest

from backstay.errors import StorageRefused
from backstay.storage.local import LocalStorage

REASON = "it answered 403"


def refuse_to_delete_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the patches are undone; all else is deleted."""
    delete = LocalStorage.delete

    def refuse(self: LocalStorage, name: str) -> None:
        if name.startswith("packs/"):
            raise StorageRefused(f"cannot delete {name}", cause=REASON)
        delete(self, name)

    monkeypatch.setattr(LocalStorage, "delete", refuse)
