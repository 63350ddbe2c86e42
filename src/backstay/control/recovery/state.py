"""What a recovery did so far: a file of lines beside its plan, so that the next run goes on where one ended.

Each line is durable before what it announces is done, and what it tells as done is done before it. A crash leaves at
most the beginning of a last line, which says nothing. What follows from a step's last line:

    pinned   the backups that the step is about are chosen, and stay so in later runs; nothing was done
    begun    nothing of its target was written, or only files, of which whole ones count and are left alone
    writing  its target was free of conflicts, and what lies there since is the step's own: it may be replaced,
             as long as the step stays the same and leads to the same place
    done     it is not run again
    failed   it is run again, as if it had not begun, or as its own `writing` says
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias

from backstay.core.clock import Clock
from backstay.core.durable_names import sync_directory
from backstay.errors import InvalidRequest, JobConflict

Event: TypeAlias = Literal["pinned", "begun", "writing", "done", "failed"]

VERSION: Final = 1
_PAGE: Final = 4096
_LARGEST: Final = 16 << 20
_HEAD: Final = re.compile(rb'\{"recovery": ([0-9]+), "begun": "[^"]*"')
_BEGIN: Final = f'{{"recovery": {VERSION}, "begun": "'.encode()
_TORN_HEAD: Final = re.compile(re.escape(_BEGIN) + rb'[-+:.T0-9]*"?\}?')


@dataclass(slots=True, kw_only=True)
class StepState:
    """How far a step is, over all runs."""

    event: Event | None = None
    digest: str = ""
    begun_at: datetime | None = None
    ended_at: datetime | None = None
    attempts: int = 0
    place: str | None = None
    writing: bool = False
    backup: str | None = None
    seconds: float = 0.0
    result: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] | None = None

    @property
    def is_done(self) -> bool:
        return self.event == "done"


class RecoveryState:
    """The file, which one process has at a time."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path, self._clock = path, clock
        self.steps: dict[str, StepState] = {}
        self.begun_at: datetime = clock.now()
        self._fd = -1

    @classmethod
    def open(cls, path: Path, clock: Clock, *, restart: bool = False) -> Self:
        """Take the file, and read what it tells; with `restart` that is forgotten.

        What is no state of a recovery stays as it is. Raises JobConflict while another process has it, InvalidRequest.
        """
        state = cls(path, clock)
        state._take()
        try:
            data = state._contents()
            whole = 0 if restart else state._read(data)
            if whole < len(data):  # the beginning of a line that a crash left, or what is to be forgotten
                os.ftruncate(state._fd, whole)
            if not whole:
                state._append({"recovery": VERSION, "begun": state.begun_at.isoformat()})
                sync_directory(path.parent)
        except BaseException:
            state.close()
            raise
        return state

    @classmethod
    def peek(cls, path: Path, clock: Clock, *, restart: bool = False) -> Self:
        """What `open` would find in the file, without taking it. Raises InvalidRequest."""
        state = cls(path, clock)
        if path.exists():
            state._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = state._contents()
                if not restart:
                    state._read(data)
            finally:
                state.close()
        return state

    def of(self, name: str) -> StepState:
        """The state of a step; an empty one for a step that no run has met."""
        return self.steps.get(name, StepState())

    def note(self, name: str, event: Event, **facts: Any) -> None:  # noqa: ANN401 - what JSON can say
        """Write a line, durable on return."""
        line = {"step": name, "event": event, "time": self._clock.now().isoformat(), **facts}
        self._append(line)
        self._apply(line)

    def close(self) -> None:
        """Let go of the file; may be called more than once."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- the file

    def _take(self) -> None:
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InvalidRequest(
                f"the state of the recovery cannot be kept in {self.path}",
                cause=error.strerror or str(error),
                hint="name another file with --state",
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise JobConflict(
                "a recovery by this plan is running",
                cause=f"another process has {self.path}",
                hint="wait for its end, or stop it and run the plan again",
            ) from None

    def _append(self, line: Mapping[str, Any]) -> None:
        data, before = json.dumps(line, ensure_ascii=True).encode() + b"\n", os.fstat(self._fd).st_size
        try:
            if os.write(self._fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._fd)
        except OSError as error:
            os.ftruncate(self._fd, before)  # nobody acts on it, and behind a part of a line another is unreadable
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _contents(self) -> bytes:
        """What is in the file, if that is from a recovery; no more than shows that it is too large."""
        data = os.pread(self._fd, _LARGEST + 1, 0)
        head, newline, _ = data.partition(b"\n")
        # Of what was not durable yet a crash may leave zeros; lines are short.
        torn = head.rstrip(b"\0") if len(head) <= _PAGE else head
        is_own = _HEAD.match(head) if newline else _BEGIN.startswith(torn) or _TORN_HEAD.fullmatch(torn)
        if not is_own:
            raise InvalidRequest(
                f"{self.path} is no state of a recovery",
                cause="its first line is not that of one",
                hint="name another file with --state",
            )
        return data

    def _read(self, data: bytes) -> int:
        """Take over what is told; how many bytes that are, without the beginning of a line that a crash left."""
        whole = data[: data.rfind(b"\n") + 1]
        if not whole:
            return 0
        try:
            if len(data) > _LARGEST:
                raise ValueError("it is larger than 16 MiB")
            head, *lines = [json.loads(line) for line in whole.splitlines()]
            if head["recovery"] != VERSION:
                raise ValueError("it is of another version")
            self.begun_at = _moment(head["begun"])
            for line in lines:
                self._apply(line)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidRequest(
                f"{self.path} cannot be read as the state of a recovery",
                cause=str(error),
                hint="name another file with --state, or begin anew with --restart",
            ) from error
        return len(whole)

    def _apply(self, line: Mapping[str, Any]) -> None:
        state = self.steps.setdefault(line["step"], StepState())
        event, when = line["event"], _moment(line["time"])
        state.event = event
        if event == "pinned":
            state.backup, state.digest, state.writing = line["backup"], line["digest"], False
        elif event == "begun":
            place = line.get("place")
            if (line["digest"], place) != (state.digest, state.place):  # what was written then may lie elsewhere
                state.writing = False
            state.place = place
            state.begun_at = state.begun_at or when
            state.attempts += 1
            state.digest, state.ended_at, state.error = line["digest"], None, None
        elif event == "writing":
            state.writing = True
        else:
            state.ended_at, state.seconds = when, state.seconds + line["seconds"]
            state.result, state.error = line.get("result", {}), line.get("error")


def _moment(text: str) -> datetime:
    """An aware time. Raises ValueError, TypeError."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"the time {text!r} has no zone")
    return found
