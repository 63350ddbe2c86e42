"""Recomputations on a Dask cluster: `dask://HOST:PORT`, with `?shared=DIR` for large inputs and outputs.

Inputs travel with the task, and the output comes back with its result, both through the scheduler's connections.
What is larger than 64 MiB does not: it needs a directory that this machine and the workers share, in which files are
put instead. Workers import functions by name, so their code must be there.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any, ClassVar, Final, Self
from urllib.parse import parse_qs, urlsplit

from backstay.errors import (
    BackstayError,
    InvalidRequest,
    RecomputeFailed,
    RecomputeTimeout,
    StorageUnavailable,
    WorkerLost,
)
from backstay.graph.command_way import CommandWay
from backstay.graph.executors import ThreadExecutor
from backstay.graph.inputs import Inputs
from backstay.graph.model import Node
from backstay.graph.process_executor import place_of
from backstay.graph.produced import Produced, spool_pieces
from backstay.graph.raised import said
from backstay.graph.ways import FunctionWay, Job, Way
from backstay.graph.worker import imported

LARGEST: Final = 64 << 20  # bytes of the inputs or the output of a task that travel with it
CONNECT_S: Final = 20.0
_PIECE: Final = 1 << 20
_MOST: Final = 256  # tasks under way, each of which is watched by a thread


class DaskExecutor(ThreadExecutor):
    """Functions and commands run on the workers of a cluster. A task that is given up is taken from the scheduler's
    queue; where it runs already Dask cannot stop it."""

    def __init__(self, client: Any, *, shared: Path | None = None, own: bool = False) -> None:  # noqa: ANN401 - lazy
        """Take a `distributed.Client`; it is closed with the executor if it is its `own`."""
        super().__init__(1)
        self._client, self._shared, self._own = client, shared, own

    @classmethod
    def connect(cls, url: str) -> Self:
        """Raises InvalidRequest for what is no such address, StorageUnavailable when no scheduler answers."""
        parts = urlsplit(url)
        options = parse_qs(parts.query)
        if parts.scheme != "dask" or not parts.hostname or options.keys() - {"shared"}:
            raise InvalidRequest(f"{url} is no address of a Dask scheduler", hint="write dask://HOST:8786?shared=DIR")
        distributed = _distributed()
        try:
            client = distributed.Client(f"tcp://{parts.netloc}", timeout=CONNECT_S, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise StorageUnavailable(
                f"no Dask scheduler answers at {parts.netloc}", cause=str(error), hint="start one by `dask scheduler`"
            ) from error
        return cls(client, shared=Path(options["shared"][0]) if "shared" in options else None, own=True)

    @property
    def parallel(self) -> int:
        """The threads of all workers that there are now."""
        threads: int = sum(self._client.nthreads().values())
        return max(1, min(_MOST, threads))

    def adapt(self, way: Way) -> Way:
        """Raises InvalidRequest for a function that workers cannot import."""
        if isinstance(way, FunctionWay):
            return _DaskWay(self._client, self._shared, function=place_of(way.function))
        return _DaskWay(self._client, self._shared, command=way.argv) if isinstance(way, CommandWay) else way

    def fate(self, way: Way) -> str:
        if isinstance(way, FunctionWay | CommandWay):
            return "it was cancelled; where a worker has begun it, Dask lets it run on"
        return super().fate(way)

    def close(self) -> None:
        super().close()
        if self._own:
            self._client.close(timeout=2)


@dataclass(frozen=True)
class _DaskWay:
    client: Any
    shared: Path | None
    function: str | None = None
    command: tuple[str, ...] = ()
    killable: ClassVar[bool] = False

    def make(self, job: Job) -> Produced:
        room = None if self.shared is None else Path(tempfile.mkdtemp(prefix="backstay-", dir=self.shared))
        try:
            packed = _pack(job.inputs, room)
            node = job.node.model_dump_json(by_alias=True)
            answer = self._result(job, (node, self.function, self.command, packed, room and str(room)))
            if isinstance(answer, str):
                with Path(answer).open("rb") as file:
                    return spool_pieces(iter(lambda: file.read(_PIECE), b""), job.scratch)
            return spool_pieces([answer], job.scratch)
        finally:
            if room is not None:
                rmtree(room, ignore_errors=True)  # a worker that was given up may still write there

    def _result(self, job: Job, arguments: tuple[object, ...]) -> bytes | str:
        future = self.client.submit(make_on_worker, *arguments, pure=False, retries=0, key=f"{job.node.id}-{id(job)}")
        try:
            with job.stopper.killing(future.cancel):
                title, cause, answer = future.result()
        except (CancelledError, TimeoutError, OSError) as error:
            if job.stopper.stopped:
                raise RecomputeTimeout("the recomputation was given up") from error
            raise WorkerLost("the Dask cluster lost the recomputation", cause=str(error)) from error
        finally:
            future.release()
        if title:
            raise RecomputeFailed(title, cause=cause)
        return answer  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return f"{self.function or ' '.join(self.command)} on {self.client.scheduler.address}"


def make_on_worker(
    node: str,
    function: str | None,
    command: tuple[str, ...],
    packed: dict[str, bytes | str],
    shared: str | None,
) -> tuple[str, str, bytes | str]:
    """What a worker does: the title and cause of a failure, empty if there was none, and the output or its file."""
    with tempfile.TemporaryDirectory(prefix="backstay-dask-") as scratch:
        inputs = Inputs(tuple(packed), lambda name: _unpacked(packed[name]), Path(scratch))
        job = Job(node=Node.parse_json(node), inputs=inputs, scratch=Path(scratch))
        try:
            way: Way = CommandWay(command) if function is None else FunctionWay(imported(function))
            produced = way.make(job)
            if produced.size <= LARGEST:
                return "", "", b"".join(produced.pieces())
            if shared is None:
                raise _too_large("its output", produced.size)
            with tempfile.NamedTemporaryFile(dir=shared, delete=False) as file:
                file.writelines(produced.pieces())
            return "", "", file.name
        except BackstayError as error:
            return error.title, error.cause, b""
        except Exception as error:  # noqa: BLE001 - told to the asker, whose node failed
            return f"its recomputation raised {type(error).__name__}", said(error), b""


def _pack(inputs: Inputs, room: Path | None) -> dict[str, bytes | str]:
    packed: dict[str, bytes | str] = {}
    total = 0
    for name, value in inputs.items():
        if room is not None:
            with tempfile.NamedTemporaryFile(dir=room, delete=False) as file:
                file.writelines(value.pieces())
            packed[name] = file.name
            continue
        parts = []
        for piece in value.pieces():
            total += len(piece)
            if total > LARGEST:
                raise _too_large("its inputs", total)
            parts.append(piece)
        packed[name] = b"".join(parts)
    return packed


def _unpacked(given: bytes | str) -> Iterator[bytes]:
    if isinstance(given, bytes):
        yield given
        return
    with Path(given).open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _too_large(what: str, size: int) -> RecomputeFailed:
    return RecomputeFailed(
        f"{what} cannot travel with a task of Dask",
        cause=f"{size} bytes or more are beyond {LARGEST}",
        hint="name a directory that all machines share: dask://HOST:PORT?shared=DIR",
    )


def _distributed() -> Any:  # noqa: ANN401 - a module that may not be there
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # its own imports
            import distributed
    except ImportError as error:
        raise InvalidRequest(
            "dask:// needs the library distributed", cause=str(error), hint="pip install 'backstay[dask]'"
        ) from error
    return distributed
