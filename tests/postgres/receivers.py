"""A repository for the WAL of test servers, and receivers that run beside the test or in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import msgspec

from backstay.core.events import Event, Warned
from backstay.operations.clusters.receive import ReceiveOptions, ReceiveResult, run_receive
from backstay.operations.wal.coverage import WalCoverage
from backstay.repository.repository import Repository
from backstay.storage.local import LocalStorage
from backstay.trust.secrets import Secret
from tests.operations.copies import back_up, make_source
from tests.postgres.servers import AS_ROOT, Server

SOURCE = Path(__file__).parents[2] / "src"
NAME = "main"


@dataclass
class Archive:
    """A repository at `place`, opened with a key file: no password has to be hashed."""

    place: Path
    secret: Secret = field(default_factory=Secret.new_keyfile)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.place / "home").mkdir(parents=True)
        (self.place / "key").write_text(self.secret.printed())
        (self.place / "key").chmod(0o600)
        Repository.create(self.storage(), self.secret).close()

    def storage(self) -> LocalStorage:
        return LocalStorage(self.place / "repository")

    def open(self) -> Repository:
        return Repository.open(self.storage(), self.secret)

    def command(self, *argv: object) -> dict[str, Any]:
        """What `subprocess` takes to run the program on this repository."""
        where = ("-r", self.place / "repository", "--password-file", self.place / "key")
        words = [sys.executable, "-m", "backstay", *where, *argv]
        environ = {"PYTHONPATH": str(SOURCE), "PATH": os.environ["PATH"], "HOME": str(self.place / "home"), "TZ": "UTC"}
        return {"args": list(map(str, words)), "env": environ, "stdin": subprocess.DEVNULL, "cwd": self.place}

    def run(self, *argv: object, status: int = 0) -> subprocess.CompletedProcess[str]:
        """One command in a process of its own."""
        done = subprocess.run(**self.command(*argv), capture_output=True, text=True, timeout=120)
        assert done.returncode == status, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *argv: object, status: int = 0) -> Any:
        return json.loads(self.run("--json", *argv, status=status).stdout)

    def receiver(self, server: Server, *argv: object, name: str = NAME) -> subprocess.Popen[bytes]:
        """`pg receive` as a process; its standard error goes to `log`."""
        with (self.place / "log").open("ab") as log:
            command = self.command("pg", "receive", server.url, "--name", name, *argv)
            process = subprocess.Popen(**command, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def service(self, socket: Path, *argv: object, name: str = NAME) -> subprocess.Popen[bytes]:
        """`pg archive --serve` as a process that listens; what it prints goes to `log`."""
        user = ("--user", "nobody") if AS_ROOT else ()
        command = self.command("pg", "archive", "--serve", "--name", name, "--socket", socket, *user, *argv)
        with (self.place / "log").open("wb") as log:
            process = subprocess.Popen(**command, stdout=log, stderr=log)
        self.processes.append(process)
        until(lambda: "archive_command" in self.log() or process.poll() is not None, "the service listens")
        return process

    def log(self) -> str:
        return (self.place / "log").read_text(errors="replace")

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait(30)


Result = TypeVar("Result")


class OnThread(ABC, Generic[Result]):
    """A receiver on a thread of this process; use it as a context manager."""

    def __init__(self, archive: Archive) -> None:
        self._archive, self._stop = archive, threading.Event()
        self.warnings: list[str] = []
        self.result: Result | None = None
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    @abstractmethod
    def receive(self, repository: Repository) -> Result:
        """Receive until `stopped`, and tell `noted`."""

    def stopped(self) -> bool:
        return self._stop.is_set()

    def noted(self, event: Event) -> None:
        if isinstance(event, Warned):
            self.warnings.append(event.message)

    def _run(self) -> None:
        try:
            with self._archive.open() as repository:
                self.result = self.receive(repository)
        except BaseException as error:  # noqa: BLE001 - raised at the end of the context
            self.failure = error

    def ended(self) -> BaseException | None:
        """What it fails with, by itself."""
        self._join(30)
        return self.failure

    def stop(self) -> None:
        self._stop.set()
        self._join(60)

    def _join(self, seconds: float) -> None:
        self._thread.join(seconds)
        assert not self._thread.is_alive()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop()
        if self.failure is not None and kind is None:
            raise self.failure


class ThreadedReceiver(OnThread[ReceiveResult]):
    """A receiver of WAL."""

    def __init__(self, archive: Archive, server: Server, *, name: str = NAME, **options: Any) -> None:
        super().__init__(archive)
        given = {"url": server.url, "every": 0.2, "heartbeat": 0.0, "host": "here", **options}
        self._options = ReceiveOptions(name=name, spool=archive.place / "spool", **given)

    def receive(self, repository: Repository) -> ReceiveResult:
        return run_receive(repository, self._options, self.stopped, events=self.noted)


def until(condition: Callable[[], object], what: str, seconds: float = 30) -> None:
    """Poll until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.05)


def position(server: Server) -> int:
    high, low = server.sql("select pg_current_wal_flush_lsn()").split("/")
    return int(high, 16) << 32 | int(low, 16)


def stored_end(archive: Archive, system: int) -> int:
    """How far the newest stored WAL of a cluster reaches."""
    with archive.open() as repository:
        coverage = WalCoverage.load(repository.wal, system)
        if not coverage.timelines:
            return 0
        runs = coverage.runs(coverage.path(max(coverage.timelines)))
        return runs[-1].end if runs else 0


def system_of(server: Server) -> int:
    return int(server.sql("select system_identifier from pg_control_system()"))


def until_stored(archive: Archive, server: Server, seconds: float = 30) -> None:
    """Until all that the server has flushed by now is stored."""
    system, end = system_of(server), position(server)
    until(lambda: stored_end(archive, system) >= end, f"WAL up to {end:X} stored", seconds)


def add_base(archive: Archive, server: Server, *, name: str = NAME) -> str:
    """A snapshot with the facts of a base backup that began and ended now; its files are of no interest here."""
    server.sql("checkpoint")
    start, timeline = server.sql("select redo_lsn, timeline_id from pg_control_checkpoint()").split("|")
    server.sql("select pg_logical_emit_message(true, 'base', 'ends')")
    stop, now = server.sql("select pg_current_wal_flush_lsn(), extract(epoch from clock_timestamp())").split("|")
    system = system_of(server)
    facts = {
        "system_id": str(system),
        "timeline": timeline,
        "start_lsn": start,
        "stop_lsn": stop,
        "stop_time": datetime.fromtimestamp(float(now), UTC).isoformat(),
    }
    with archive.open() as repository:
        if not (archive.place / "files").exists():
            back_up(repository, make_source(archive.place / "files", files=1))
        made = repository.snapshots.live()[0]
        with repository.begin_session() as session:
            manifest = msgspec.structs.replace(
                made,
                id=session.id,
                source=f"postgres:{system}",
                name=name,
                previous=None,
                previous_digest=None,
                consistency=facts,
            )
            repository.snapshots.commit(manifest)
        return manifest.id
