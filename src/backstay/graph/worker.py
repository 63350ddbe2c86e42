"""The worker's side: makes one node after the other, as it is told through its standard input.

What functions print goes to standard error, since standard output carries the answers.
"""

from __future__ import annotations

import os
import queue
import sys
import tempfile
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import IO, Final, NoReturn

from backstay.errors import BackstayError, InputLost, InvalidRequest, RecomputeFailed, WorkerLost
from backstay.graph.frames import VERSION, Frame, receive, send, send_pieces
from backstay.graph.inputs import Inputs
from backstay.graph.model import Node
from backstay.graph.produced import Produced, spool_pieces
from backstay.graph.raised import said
from backstay.graph.recompute import DEFAULT, Recomputers
from backstay.graph.ways import Function, FunctionWay, Job, Way

_AHEAD: Final = 4  # frames read before they are asked for
_GONE: Final = 1


class Worker:
    """Answers one asker. `shares_code` lets that one name any function that can be imported here."""

    def __init__(self, source: IO[bytes], out: IO[bytes], recomputers: Recomputers, *, shares_code: bool) -> None:
        self._source, self._out = source, out
        self._recomputers, self._shares_code = recomputers, shares_code
        self._frames: queue.Queue[tuple[Frame, bytes]] = queue.Queue(_AHEAD)

    def serve(self) -> NoReturn:
        """Until the asker is gone; then the process ends, also in the middle of a function."""
        threading.Thread(target=self._read, name="frames", daemon=True).start()
        send(self._out, "hello", version=VERSION, capabilities=self._recomputers.capabilities)
        while True:
            frame, _ = self._frames.get()
            if frame["type"] == "task":
                self._answer(frame)
            elif frame["type"] != "hello":
                _end("the asker sent what makes no sense here")

    def _read(self) -> None:
        try:
            while True:
                self._frames.put(receive(self._source))
        except WorkerLost as error:
            _end("" if "is gone" in error.title else str(error))

    def _answer(self, frame: Frame) -> None:
        try:
            try:
                with tempfile.TemporaryDirectory(prefix="backstay-worker-", ignore_cleanup_errors=True) as name:
                    send_pieces(self._out, self._made(frame, Path(name)).pieces())
                send(self._out, "done")
            except BackstayError as error:
                send(self._out, "failed", title=error.title, cause=error.cause)
            except Exception as error:  # noqa: BLE001 - told to the asker, whose node failed
                send(self._out, "failed", title=f"its recomputation raised {type(error).__name__}", cause=said(error))
        except OSError:
            _end("")

    def _made(self, frame: Frame, scratch: Path) -> Produced:
        node = Node.parse(frame.get("node"))
        inputs = Inputs(node.deps, lambda dep: self._input(dep, scratch), scratch)
        return self._way(frame).make(Job(node=node, inputs=inputs, scratch=scratch))

    def _way(self, frame: Frame) -> Way:
        function, capability = frame.get("function"), str(frame.get("capability"))
        if function is not None and self._shares_code:
            return FunctionWay(imported(str(function)))
        way = self._recomputers.registered(capability)
        if way is None:
            raise RecomputeFailed(f"this worker does not recompute {capability!r}")
        return way

    def _input(self, dep: str, scratch: Path) -> Iterator[bytes]:
        """All of an input is fetched before any is used: a function may read two at once, or one in part."""
        return spool_pieces(self._fetched(dep), scratch).pieces()

    def _fetched(self, dep: str) -> Iterator[bytes]:
        send(self._out, "need", dep=dep)
        while True:
            frame, data = self._frames.get()
            if frame["type"] == "piece":
                yield data
            elif frame["type"] == "end":
                return
            else:
                raise InputLost(f"the output of {dep} could not be sent")


def imported(place: str) -> Function:
    """The function that `module:name` stands for; raises RecomputeFailed."""
    module, _, name = place.partition(":")
    try:
        found: object = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise RecomputeFailed(f"the function {place} cannot be imported", cause=str(error)) from error
    if not callable(found):
        raise RecomputeFailed(f"{place} is no function")
    return found


def run_worker(modules: list[str], *, shares_code: bool = False) -> NoReturn:
    """Import what registers functions, and serve on the standard streams of this process. Raises InvalidRequest."""
    for module in modules:
        try:
            import_module(module)
        except Exception as error:
            raise InvalidRequest(
                f"the module {module} cannot be imported", cause=f"{type(error).__name__}: {error}", hint="see --path"
            ) from error
    source, out = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)  # what functions print is no answer
    Worker(source, out, DEFAULT, shares_code=shares_code).serve()


def _end(why: str) -> NoReturn:
    if why:
        os.write(2, f"backstay worker: {why}\n".encode())
    os._exit(_GONE)


def main() -> NoReturn:
    """What `ProcessExecutor` starts: a worker that shares the code of its asker."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a key pressed at the terminal is for the asker alone
    sys.argv = ["backstay-worker"]
    run_worker([], shares_code=True)
