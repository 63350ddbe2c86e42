"""Calls of obstore that Ctrl-C can end: it waits outside of Python, where no signal is heard."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def heard(call: Callable[[], T]) -> T:
    """What a call gives or raises. Signals reach the main thread alone, which leaves the call to another and waits.

    A call that was interrupted may still take effect, as one whose answer is lost.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    future: Future[T] = Future()
    threading.Thread(target=_run, args=(call, future), name="cloud-call", daemon=True).start()
    try:
        return future.result()
    finally:
        del future  # an error that comes out of it knows this frame, which must not know it in turn


def _run(call: Callable[[], T], future: Future[T]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - handed to who waits, which raises it
        future.set_exception(error)
    finally:
        del future
