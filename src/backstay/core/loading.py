"""Modules that are loaded while something else is waited for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module


@contextmanager
def loading(*modules: str) -> Iterator[None]:
    """Load modules on a thread of its own while the body runs; they are there when it ends.

    It helps a body that leaves the interpreter, as the derivation of a key does.
    """
    thread = threading.Thread(target=_load, args=(modules,), name="backstay-loading")
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _load(modules: tuple[str, ...]) -> None:
    for module in modules:
        with suppress(Exception):  # whoever needs the module meets it again, where it can be told
            import_module(module)
