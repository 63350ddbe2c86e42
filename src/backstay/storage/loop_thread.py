"""An event loop on a thread of its own, for callers that wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from backstay.errors import StorageUnavailable

T = TypeVar("T")


class LoopThread:
    """Runs coroutines for any number of threads; started by the first call.

    A library may divide a call among tasks and hear of the first that fails only: `told` are errors of which the others
    need not be reported, as that call raises one of them.
    """

    def __init__(self, name: str, *, told: tuple[type[BaseException], ...] = ()) -> None:
        self._name, self._told = name, told
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The coroutine's result, or what it raises; it is cancelled when the waiting thread is interrupted."""
        future = asyncio.run_coroutine_threadsafe(work, self._running())
        try:
            return future.result()
        except CancelledError as error:  # somebody closed the store while this call was under way
            raise StorageUnavailable("the store was closed", cause="a call was still under way") from error
        finally:
            future.cancel()  # no effect on what is done

    def close(self) -> None:
        """End the loop and its thread; what still runs on it is cancelled."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._loop.set_exception_handler(self._report)
                self._thread = threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True)
                self._thread.start()
            return self._loop

    def _report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not ("future" in context and isinstance(context.get("exception"), self._told)):
            loop.default_exception_handler(context)


async def _cancel_others() -> None:
    tasks = asyncio.all_tasks() - {task for task in (asyncio.current_task(),) if task}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
