"""A server over a data directory of this machine: started, watched until it has recovered, stopped.

It runs as the owner of the directory if this program is root. Whether it has recovered is read from its control file,
so that no role and no address is needed.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from backstay.core.clock import LOOK_S, Clock
from backstay.errors import RecoveryFailed, RecoveryTimeout
from backstay.sources.postgres.control_file import read_control

_STOP_S: Final = 60
_ENDS_WITHIN_S: Final = 1.0  # a program that is told to
_LOG_LINES: Final = 6
_SEVERE: Final = ("FATAL:", "PANIC:")
_PRINTED: Final = "backstay-printed"
_PID: Final = "postmaster.pid"


class LocalServer:
    """One server; `programs` is where its binaries are, `place` a directory for its log and for what they print."""

    def __init__(self, data: Path, programs: Path, place: Path, *, clock: Clock) -> None:
        """Raises RecoveryFailed when a server cannot run there."""
        self.data, self.place, self._programs, self._clock = data, place, programs, clock
        self.log_file = place / "server.log"
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            owner = data.stat()
            if owner.st_uid == 0:
                raise RecoveryFailed(
                    f"a server cannot run in {data}",
                    cause="the files belong to root, and PostgreSQL does not run as root",
                    hint=f"give them to the user that it is to run as: `chown -R postgres: {data}`",
                )
            self._user = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}

    def start(self, *, patience_s: float, tick: Callable[[], None], settings: Mapping[str, str] | None = None) -> None:
        """Start it and wait until it has recovered and is promoted; `settings` outweigh those in files.

        `tick`, called meanwhile, may raise what ends the wait; the server may run then. Raises RecoveryFailed, or
        RecoveryTimeout, with the end of its log.
        """
        # On its command line: a file may name the directory, and the pid file, of the server that was backed up.
        given = {"data_directory": str(self.data), "external_pid_file": "", **(settings or {})}
        options = " ".join(f"-c {name}={shlex.quote(value)}" for name, value in given.items())
        where = ("-D", str(self.data), "-l", str(self.log_file), "-o", options)
        started = self.call("pg_ctl", *where, *_waiting(patience_s), "start", tick=tick)
        if started.returncode != 0:
            raise self._failed("the server did not start", started.stdout)
        until = self._clock.monotonic() + patience_s
        while not self._is_promoted():
            if not self.is_running():
                raise self._failed("the server ended before it came to its target")
            if self._clock.monotonic() > until:
                raise self._failed(f"the server has not recovered within {patience_s:.0f} s", kind=RecoveryTimeout)
            tick()
            self._clock.sleep(LOOK_S)

    def is_running(self) -> bool:
        return (self.data / _PID).exists()

    def stop(self) -> None:
        """Stop it at once, by the process id in its directory."""
        if self.is_running():
            self.call("pg_ctl", "-D", str(self.data), "-m", "immediate", *_waiting(_STOP_S), "stop", tick=_no_tick)

    def has(self, program: str) -> bool:
        return (self._programs / program).exists()

    def call(self, program: str, *arguments: str, tick: Callable[[], None]) -> subprocess.CompletedProcess[str]:
        """Run one of its programs; what it printed is its `stdout`. What `tick`, called meanwhile, raises ends it.

        Raises RecoveryFailed when it cannot be run.
        """
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        command = [str(self._programs / program), *arguments]
        try:
            # Into a file: the server that pg_ctl leaves behind would keep a pipe open for as long as it runs.
            with (self.place / _PRINTED).open("w+") as printed:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=printed,
                    stderr=printed,
                    cwd="/",
                    env=environment,
                    start_new_session=True,  # Ctrl-C stops us, and not it before us
                    **self._user,
                )
                status = _ended(process, tick)
                printed.seek(0)
                return subprocess.CompletedProcess(command, status, printed.read(), "")
        except OSError as error:
            raise RecoveryFailed(
                f"cannot run {self._programs / program}",
                cause=error.strerror or str(error),
                hint="name the directory of the server's programs with --programs",
            ) from error

    def tidy(self) -> None:
        """Remove what programs printed; the log stays."""
        (self.place / _PRINTED).unlink(missing_ok=True)

    def own(self, place: Path) -> None:
        """Let the server read and write a place."""
        if self._user:
            os.chown(place, self._user["user"], self._user["group"])

    def _is_promoted(self) -> bool:
        control = read_control(self.data)
        return control is not None and control.is_in_production

    def _failed(self, title: str, printed: str = "", *, kind: type[RecoveryFailed] = RecoveryFailed) -> RecoveryFailed:
        log = self.log_file.read_text(errors="replace") if self.log_file.exists() else ""
        lines = log.splitlines()
        if not lines:  # it came not even to that
            hint = f"see that the server's user may enter {self.data} and all directories above it"
            return kind(title, cause=" ".join(printed.split()), hint=hint)
        severe = [line for line in lines if any(word in line for word in _SEVERE)] or lines
        tail = " | ".join(lines[-_LOG_LINES:])
        return kind(title, cause=severe[-1].strip() if severe else "", hint=f"the end of its log: {tail}")


def _ended(process: subprocess.Popen[bytes], tick: Callable[[], None]) -> int:
    """Wait for its end; its status. What `tick` raises ends it and all that it has started."""
    try:
        while (status := _status(process, LOOK_S)) is None:
            tick()
    except BaseException:
        os.killpg(process.pid, signal.SIGINT)  # so that pg_ctl stops the server that it waits for
        if _status(process, _ENDS_WITHIN_S) is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        raise
    return status


def _status(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Its exit status; None if it still runs after so many seconds."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _no_tick() -> None:
    """For what must be waited for, whoever asks to stop."""


def _waiting(patience_s: float) -> tuple[str, ...]:
    return "-t", str(max(1, round(patience_s))), "-w"
