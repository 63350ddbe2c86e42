"""Calls of a store, and what they raise."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from backstay.errors import BackstayError, ObjectNotFound
from backstay.storage.backend import StorageBackend

Calls = dict[str, Callable[[], object]]


def every_call(store: StorageBackend) -> Calls:
    return {
        "list": lambda: list(store.list()),
        "list below": lambda: list(store.list("sessions/")),
        "stat": lambda: store.stat("a"),
        "exists": lambda: store.exists("a"),
        "retrieve": lambda: store.retrieve("a"),
        "retrieve a part": lambda: store.retrieve("a", start=1, length=2),
        "retrieve the rest": lambda: store.retrieve("a", start=1),
        "delete": lambda: store.delete("a"),
        "store": lambda: store.store("a", b"x"),
        "overwrite": lambda: store.store("a", b"x", overwrite=True),
        "refuses_damage": lambda: store.refuses_damage("a"),
    }


def failure(call: Callable[[], object]) -> BackstayError:
    with pytest.raises(BackstayError) as caught:
        call()
    assert not isinstance(caught.value, ObjectNotFound)
    return caught.value
