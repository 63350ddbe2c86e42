"""Executors by what people write for them, as in `--executor dask://HOST:PORT`."""

from __future__ import annotations

from backstay.errors import InvalidRequest
from backstay.graph.dask_executor import DaskExecutor
from backstay.graph.executors import ThreadExecutor
from backstay.graph.process_executor import ProcessExecutor


def executor_of(text: str) -> ThreadExecutor:
    """What `threads`, `processes` (with `:N` for how many at once) or `dask://HOST:PORT` means.

    Raises InvalidRequest, or StorageUnavailable when no scheduler answers.
    """
    kind, _, rest = text.partition(":")
    if kind == "dask":
        return DaskExecutor.connect(text)
    if kind not in ("threads", "processes") or (rest and not (rest.isascii() and rest.isdigit() and int(rest) > 0)):
        raise InvalidRequest(
            f"there is no executor {text!r}", hint="name threads, processes, threads:N, processes:N or dask://HOST:PORT"
        )
    parallel = int(rest) if rest else None
    if kind == "threads":
        return ThreadExecutor(parallel)
    return ProcessExecutor(parallel)
