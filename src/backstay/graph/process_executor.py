"""Functions in processes of their own, which can be killed, and which have an interpreter to themselves."""

from __future__ import annotations

import sys
from typing import Final

from backstay.errors import InvalidRequest
from backstay.graph.executors import ThreadExecutor
from backstay.graph.ways import Function, FunctionWay, Way
from backstay.graph.worker import imported
from backstay.graph.worker_pool import WorkerPool, WorkerWay

# Isolated, and the path handed on: nothing is imported from the directory that happens to be the current one.
_START: Final = "import sys; sys.path[:] = sys.argv[1:]; from backstay.graph.worker import main; main()"


class ProcessExecutor(ThreadExecutor):
    """Each function runs in a spawned process, which is used for the next one too; commands run as they always do."""

    def __init__(self, parallel: int | None = None) -> None:
        super().__init__(parallel)
        self._pool = WorkerPool([sys.executable, "-I", "-c", _START, *filter(None, sys.path)])

    def adapt(self, way: Way) -> Way:
        """Raises InvalidRequest for a function that a process cannot import."""
        return WorkerWay(self._pool, place_of(way.function)) if isinstance(way, FunctionWay) else way

    def fate(self, way: Way) -> str:
        del way
        return "its process was killed"

    def close(self) -> None:
        super().close()
        self._pool.close()


def place_of(function: Function) -> str:
    """`module:name` by which another process finds a function; raises InvalidRequest."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if module and name and module != "__main__" and "<" not in name:
        place = f"{module}:{name}"
        if imported(place) is function:
            return place
    raise InvalidRequest(
        f"the function {name or function!r} cannot run in another process",
        cause="it is not a function of a module that can be imported, but of a script, a function or a variable",
        hint="put it at the top level of a module, or use threads",
    )
