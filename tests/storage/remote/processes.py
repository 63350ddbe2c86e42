"""Servers of other programs, as processes that are stopped by their id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def script(name: str) -> str:
    """A program that came with a package of the dev group."""
    return str(Path(sysconfig.get_path("scripts")) / name)


def answers(port: int, host: str = "127.0.0.1") -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def wait_until(true: Callable[[], bool], seconds: float = 60) -> None:
    """Look again and again; an AssertionError when it does not come true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


class ServerProcess:
    """A program that listens on `port`; it can be killed and started again on the same one."""

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        environment: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.port, self.host = port, host
        self._command = [*command]
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> ServerProcess:
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(self._is_up)
        return self

    def kill(self) -> None:
        """At once, as a crash of the machine would."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"{self._command[0]} ended with {self._process.returncode}"
        return answers(self.port, self.host)

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
