"""A real `backstay serve` in a process of its own, over TLS, watched from outside."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

SOURCE = Path(__file__).parents[2] / "src"


class RealServer:
    """The process, what it prints, what it and its children have on their command lines, and all that it answers."""

    def __init__(self, root: Path, *options: str, environ: Mapping[str, str]) -> None:
        self.root = root
        (root / "home").mkdir(exist_ok=True)
        self.environ = {"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"], "HOME": str(root / "home"), **environ}
        words = [sys.executable, "-m", "backstay", "-v", "--json", "serve", "--port", "0"]
        self._err = (root / "serve.err").open("wb")
        self.process = subprocess.Popen(
            [*words, "--data-dir", str(root / "data"), *options],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._err,
        )
        assert self.process.stdout is not None
        self.told = json.loads(self.process.stdout.readline() or b"{}")
        self.lines: set[bytes] = set()
        self.answers: list[str] = []
        self._watching = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def __enter__(self) -> Self:
        assert "address" in self.told, (self.root / "serve.err").read_text()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        finally:
            self._watching.set()
            self._watcher.join()
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.answers.append(self.process.stdout.read().decode())
            self.process.stdout.close()
            self._err.close()

    @property
    def printed(self) -> str:
        """All that it wrote to its standard error."""
        return (self.root / "serve.err").read_text(errors="replace")

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: Mapping[str, str] | None = None,
        agent: Path | None = None,
        once: str | None = None,
    ) -> tuple[int, Any]:
        """One request; `once` names a field of the answer that is not to be looked at: it is told once."""
        context = ssl.create_default_context(cafile=self.root / "data" / "server.pem")
        if agent is not None:
            context.load_cert_chain(agent)
        host = self.told["address"].removeprefix("https://")
        connection = http.client.HTTPSConnection(host, context=context, timeout=30)
        try:
            sent = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
            kind = {"Content-Type": "application/json"} if sent is not None else {}
            connection.request(method, path, sent, {**kind, **(headers or {})})
            answer = connection.getresponse()
            raw = answer.read().decode(errors="replace")
            shown: Any = json.loads(raw) if "json" in (answer.getheader("Content-Type") or "") else raw
            kept = {name: value for name, value in shown.items() if name != once} if once else shown
            self.answers.append(f"{answer.getheaders()}\n{json.dumps(kept)}")
            return answer.status, shown
        finally:
            connection.close()

    def _watch(self) -> None:
        """Look at all command lines of our descendants, again and again: some live for a moment."""
        while not self._watching.is_set():
            self.lines |= set(command_lines(self.process.pid))
            time.sleep(0.01)


def command_lines(parent: int) -> list[bytes]:
    """The command lines of a process and of all below it."""
    found, waiting = [], [parent]
    while waiting:
        process = Path("/proc") / str(waiting.pop())
        try:
            found.append((process / "cmdline").read_bytes())
            for task in (process / "task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except OSError:  # it has ended
            continue
    return found
