"""The asker's side: workers that a command starts, such as `ssh HOST backstay graph worker --import MODULE`.

Each runs one task at a time and is kept for the next. One that is given up, or answers nonsense, is killed.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, ClassVar, Final

from backstay.errors import BackstayError, InputLost, RecomputeFailed, RecomputeTimeout, WorkerLost
from backstay.graph.command_way import kill_group, last_words
from backstay.graph.frames import VERSION, receive, send, send_pieces
from backstay.graph.produced import Produced, spool_pieces
from backstay.graph.ways import Job

START_S: Final = 60.0  # until a worker must have said hello: ssh may take its time
_END_S: Final = 2.0  # for a worker to end once its pipe is closed, before it is killed


class _Worker:
    """One process. Its messages go to a file, for when it fails."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._program = argv[0]
        self._messages: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        try:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._messages,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            self._messages.close()
            raise WorkerLost(f"cannot start {argv[0]}", cause=str(error)) from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self._from = self._process.stdin, self._process.stdout

    def greet(self) -> tuple[str, ...]:
        """Wait for its hello; what it can recompute. Raises WorkerLost."""
        timer = threading.Timer(START_S, self.kill)
        timer.start()
        try:
            with self._told():
                frame, _ = receive(self._from)  # before anything is sent: what is no worker may never read
                if frame["type"] != "hello" or frame.get("version") != VERSION:
                    raise WorkerLost("it speaks another version of the protocol", cause=f"it said {frame!r:.200}")
                send(self._to, "hello", version=VERSION)
        finally:
            timer.cancel()
        return tuple(map(str, frame.get("capabilities") or ()))

    def make(self, job: Job, function: str | None) -> Produced:
        """Have a node made; raises WorkerLost, RecomputeFailed, InputLost."""
        with self._told():
            node = job.node.model_dump(mode="json", by_alias=True)
            send(self._to, "task", node=node, capability=job.node.metadata.capability, function=function)
            return spool_pieces(self._output(job), job.scratch)

    def _output(self, job: Job) -> Iterator[bytes]:
        while True:
            frame, data = receive(self._from)
            match frame["type"]:
                case "piece":
                    yield data
                case "need":
                    self._give(job, str(frame.get("dep")))
                case "done":
                    return
                case "failed":
                    raise RecomputeFailed(str(frame.get("title")), cause=str(frame.get("cause") or ""))
                case other:
                    raise WorkerLost(f"a worker answered {other!r}, which makes no sense")

    def _give(self, job: Job, dep: str) -> None:
        if dep not in job.inputs:
            raise WorkerLost(f"a worker asked for {dep}, which the node does not depend on")
        try:
            send_pieces(self._to, job.inputs[dep].pieces())
        except InputLost:
            send(self._to, "lost")
        else:
            send(self._to, "end")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Within, a pipe that breaks is WorkerLost, with what the worker said last."""
        try:
            yield
        except (OSError, WorkerLost) as error:
            self.kill()
            self._process.wait()
            raise WorkerLost(
                f"a worker ended: {self._program}",
                cause="; it said: ".join(filter(None, [str(error), last_words(self._messages)])),
                hint=error.hint if isinstance(error, BackstayError) else "",
            ) from error

    def is_gone(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def kill(self) -> None:
        """Kill it and all that it started."""
        if self._process.poll() is None:
            kill_group(self._process.pid)

    def close(self) -> None:
        """Let it end, or end it."""
        for pipe in (self._to, self._from):
            with suppress(OSError):
                pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self.kill()
        self._process.wait()
        self._messages.close()


class WorkerPool:
    """As many workers of one command as tasks run at once. For several threads."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._argv = tuple(argv)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._capabilities: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return " ".join(self._argv)

    def capabilities(self) -> tuple[str, ...]:
        """What its workers can recompute; starts one. Raises WorkerLost."""
        if self._capabilities is None:
            self._put(self._get())
        assert self._capabilities is not None
        return self._capabilities

    def make(self, job: Job, function: str | None = None) -> Produced:
        """Have a node made by a worker that is free or is started; raises WorkerLost, RecomputeFailed, InputLost."""
        worker = self._get(job)
        fit = False
        try:
            with job.stopper.killing(worker.kill):
                produced = worker.make(job, function)
            fit = True
            return produced
        except RecomputeFailed as error:
            fit = not isinstance(error, WorkerLost | RecomputeTimeout)
            raise
        finally:
            self._put(worker) if fit and not job.stopper.stopped else worker.close()

    def close(self) -> None:
        """End the workers that are idle; those at work end with their task."""
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.close()

    def _get(self, job: Job | None = None) -> _Worker:
        while (idle := self._take_idle()) is not None:
            if not idle.is_gone():
                return idle
            idle.close()
        worker = _Worker(self._argv)
        try:
            if job is None:
                self._capabilities = worker.greet()
            else:
                with job.stopper.killing(worker.kill), job.stopper.preparing():
                    self._capabilities = worker.greet()
        except BaseException:
            worker.close()
            raise
        return worker

    def _take_idle(self) -> _Worker | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _put(self, worker: _Worker) -> None:
        with self._lock:
            self._idle.append(worker)


@dataclass(frozen=True)
class WorkerWay:
    """Have nodes made by the workers of a pool: by capability, or by a function that both sides can import."""

    pool: WorkerPool
    function: str | None = None
    killable: ClassVar[bool] = True

    def make(self, job: Job) -> Produced:
        return self.pool.make(job, self.function)

    def __str__(self) -> str:
        return f"function {self.function} in a process" if self.function else f"worker {self.pool}"
