"""Modules that are loaded while something else is waited for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module


@contextmanager
def loading(*modules: str) -> Iterator[None]:
    """Load modules on a thread of its own while the body runs; they are there when it ends.

    It helps a body that leaves the interpreter, as the derivation of a key does. Where no thread is to be had, nothing
    is loaded ahead: most of what reads a repository needs none.
    """
    thread = threading.Thread(target=_load, args=(modules,), name="backstay-loading")
    with suppress(RuntimeError):  # as many run as this user or container may have
        thread.start()
    try:
        yield
    finally:
        if thread.ident is not None:  # it was started
            thread.join()


def _load(modules: tuple[str, ...]) -> None:
    for module in modules:
        with suppress(Exception):  # whoever needs the module meets it again, where it can be told
            import_module(module)
