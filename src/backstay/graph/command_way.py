"""Nodes that a command makes: a list of arguments with placeholders, run without a shell.

| placeholder | stands for |
|---|---|
| `{output}` | the file that the command writes; without it, its standard output is the node's output |
| `{input:ID}` | a file with the output of the dependency ID |
| `{inputs}` | as an argument of its own: one argument for each dependency, in their order |
| `{node}` | the id of the node |
| `{python}` | the Python that runs Backstay |

All other braces stay as they are, so that programs for awk or Python need no escapes.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar, Final, Self

from backstay.errors import InvalidRequest, RecomputeFailed, RecomputeTimeout
from backstay.graph.produced import Produced, spool
from backstay.graph.ways import Job

_PLACEHOLDER: Final = re.compile(r"\{(output|node|python|input:[^{}]+)\}")
_ALL_INPUTS: Final = "{inputs}"
_TOLD: Final = 2000  # bytes of what a command said last
_OURS: Final = "BACKSTAY_"  # no command needs the repository's password


@dataclass(frozen=True)
class CommandWay:
    """A command template. It runs in the current directory, in a process group of its own that can be killed whole."""

    argv: tuple[str, ...]
    killable: ClassVar[bool] = True

    @classmethod
    def of(cls, argv: Sequence[str]) -> Self:
        """Raises InvalidRequest for what cannot be a command."""
        if isinstance(argv, str) or not argv or not argv[0] or any("\0" in part for part in argv):
            raise InvalidRequest(
                "that is no command template", cause=f"it is {argv!r}", hint="give a list: the program, then arguments"
            )
        return cls(tuple(argv))

    def make(self, job: Job) -> Produced:
        output = job.scratch / "output"
        argv, to_file = self._filled(job, output)
        with (job.scratch / "messages").open("w+b") as messages:
            if to_file:
                _run(argv, job, messages, messages)
            else:
                with output.open("wb") as out:
                    _run(argv, job, out, messages)
        if not output.is_file() or output.is_symlink():
            raise RecomputeFailed(f"the command `{self}` wrote no output", cause=f"there is no file at {output}")
        return spool(output, job.scratch)

    def _filled(self, job: Job, output: Path) -> tuple[list[str], bool]:
        """The arguments with their placeholders filled, and whether one of them is the output."""
        used = False

        def fill(match: re.Match[str]) -> str:
            nonlocal used
            what = match[1]
            if what == "output":
                used = True
                return str(output)
            if what == "node":
                return job.node.id
            if what == "python":
                return sys.executable
            return str(self._input(job, what.removeprefix("input:")))

        argv: list[str] = []
        for part in self.argv:
            if part == _ALL_INPUTS:
                argv += [str(value.path()) for value in job.inputs.values()]
            else:
                argv.append(_PLACEHOLDER.sub(fill, part))
        return argv, used

    def _input(self, job: Job, name: str) -> Path:
        if name not in job.inputs:
            raise RecomputeFailed(
                f"the command `{self}` asks for an input that the node has not",
                cause=f"{name} is none of its dependencies",
            )
        return job.inputs[name].path()

    def __str__(self) -> str:
        return " ".join(self.argv)


def _run(argv: list[str], job: Job, out: IO[bytes], messages: IO[bytes]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=messages, env=environment, start_new_session=True
        )
    except (OSError, ValueError) as error:
        raise RecomputeFailed(f"cannot start {argv[0]}", cause=str(error)) from error
    try:
        with job.stopper.killing(lambda: kill_group(process.pid)):
            status = process.wait()
    except RecomputeTimeout:  # told to stop between the start and here
        kill_group(process.pid)
        process.wait()
        raise
    if status:
        how = f"exit status {status}" if status > 0 else _signal(-status)
        raise RecomputeFailed(f"{argv[0]} failed", cause=f"{how}; it said: {last_words(messages) or 'nothing'}")


def _signal(number: int) -> str:
    try:
        return f"signal {signal.Signals(number).name}"
    except ValueError:  # most real-time signals have no name
        return f"signal {number}"


def kill_group(leader: int) -> None:
    """Kill a process that was started in a session of its own, and those that it started."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def last_words(messages: IO[bytes]) -> str:
    """The end of what a process wrote into a file."""
    messages.seek(0, os.SEEK_END)
    messages.seek(max(0, messages.tell() - _TOLD))
    return messages.read(_TOLD).decode(errors="replace").strip()
