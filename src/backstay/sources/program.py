"""A program of a database as a stream of bytes, from it or to it; what it said is kept in case that it fails."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fcntl import F_SETPIPE_SZ, fcntl
from pathlib import Path
from typing import IO, Any, Final

from backstay.codec.compression import Buffer
from backstay.errors import BackstayError, DumpFailed, VersionUnsupported

_TOLD: Final = 4096  # last bytes of what a program said
_LINES: Final = 6  # of it, in a message
_PIPE: Final = 1 << 20  # bytes
_ENDS_WITHIN_S: Final = 30.0  # after it closed its output
_TICK_S: Final = 0.2


# Asks the kernel for the end of this process when its parent ends, and becomes the program.
_TIED: Final = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


def tied(arguments: Sequence[str]) -> list[str]:
    """The same program, named by its path, that does not outlive the thread which starts it, even one that is killed.

    For programs that run until they are stopped: others end when nobody reads or writes their pipes any more.
    """
    return [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *arguments]


class Program:
    """A running program, in a session of its own, so that Ctrl-C stops us and not it before us."""

    def __init__(self, arguments: Sequence[str], environ: Mapping[str, str], **streams: Any) -> None:  # noqa: ANN401
        """Raises VersionUnsupported when it cannot be started."""
        self.name = Path(arguments[0]).name
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        try:
            self.process = subprocess.Popen(
                arguments, stderr=self._said, env=environ, start_new_session=True, bufsize=0, **{"cwd": "/", **streams}
            )
        except OSError as error:
            self._said.close()
            raise VersionUnsupported(f"{arguments[0]} cannot be started", cause=error.strerror or str(error)) from error

    def wait(self, seconds: float) -> int | None:
        """Its exit status, negative for a signal; None if it still runs after so many seconds."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def said(self) -> str:
        """The last lines of what it wrote to standard error."""
        end = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, end - _TOLD))
        lines = [line.strip() for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        return "; ".join(lines[-_LINES:])

    def written(self, pieces: Iterable[Buffer]) -> Iterator[bool]:
        """Give it piece after piece; false, once and last, when it wants no more."""
        assert self.process.stdin is not None
        for piece in pieces:
            left = memoryview(piece)
            while left:
                try:
                    left = left[self.process.stdin.write(left) or 0 :]
                except BrokenPipeError:  # it has all that it needs, or has failed: its status tells
                    yield False
                    return
            yield True

    def close_input(self) -> None:
        """Tell it that there is no more."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def ended(self, tick: Callable[[], None]) -> int:
        """Wait for its end, however long that takes; its status. `tick`, called meanwhile, may end it before."""
        while (status := self.wait(_TICK_S)) is None:
            tick()
        return status

    def failure(self, status: int) -> BackstayError:
        """What its end means, when it is not success."""
        ended = f"it was killed by {_signal(-status)}" if status < 0 else f"it ended with status {status}"
        return DumpFailed(f"{self.name} failed", cause=f"{ended}: {self.said()}" if self.said() else ended)

    def close(self) -> None:
        """Kill it if it still runs, and let go; may be called more than once."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)  # what it has started, too: a shell waits for others
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        self.process.wait()
        self._said.close()


class ProgramReader:
    """The output of a program."""

    def __init__(
        self,
        arguments: Sequence[str],
        environ: Mapping[str, str],
        warn: Callable[[str], None],
        tick: Callable[[], None] | None = None,
    ) -> None:
        """Start it; `warn` is told what it says although it succeeds. Raises VersionUnsupported.

        `tick` is called while it says nothing, and may raise what ends the wait.
        """
        self._warn, self._tick = warn, tick
        self._program = Program(arguments, environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self._program.process.stdout is not None
        self._output = self._program.process.stdout.fileno()
        _widen(self._output)
        self._finished = False

    def read(self, size: int) -> bytes:
        """As many bytes as were asked for, fewer only at the end. Raises DumpFailed."""
        parts: list[bytes] = []
        missing = size
        while missing and (part := self._read_some(missing)):
            parts.append(part)
            missing -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_some(self, size: int) -> bytes:
        if self._tick is not None:
            waiting = select.poll()
            waiting.register(self._output, select.POLLIN)
            while not waiting.poll(_TICK_S * 1000):
                self._tick()
        try:
            return os.read(self._output, size)
        except OSError as error:
            raise DumpFailed(f"{self._program.name} cannot be read", cause=error.strerror or str(error)) from error

    def finish(self) -> None:
        """Raises DumpFailed unless the program ended well: an output that ends early looks like one that is whole."""
        if self._finished:
            return
        status = self._program.wait(_ENDS_WITHIN_S)
        try:
            if status is None:
                raise DumpFailed(f"{self._program.name} does not end", cause="it closed its output long ago")
            if status != 0:
                raise self._program.failure(status)
            if said := self._program.said():
                self._warn(f"{self._program.name}: {said}")
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Kill the program; may be called more than once, and after finish."""
        if not self._finished:
            self._finished = True
            self._program.close()


def _widen(pipe: int) -> None:
    """Fewer and larger reads, where the kernel allows it."""
    try:
        fcntl(pipe, F_SETPIPE_SZ, _PIPE)
    except OSError:
        return  # the user has too many wide pipes already; a narrow one does


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
