"""A service with policies of agents behind TLS, in a thread, and agents as processes of their own."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from backstay.api.server import run
from backstay.api.tls import Tls
from backstay.catalog.models import Job
from backstay.catalog.models.jobs import FINISHED
from backstay.control.access.principal import the_machine
from backstay.control.access.server_certificate import own_certificate
from backstay.control.agents.home import Home
from backstay.control.agents.joining import join
from backstay.control.service.options import ServiceOptions
from backstay.control.service.service import Service
from backstay.repository.repository import Repository

SOURCE: Final = Path(__file__).parents[2] / "src"
PASSWORD: Final = "a long password of the tests"
MACHINE: Final = the_machine()
LEASE_S: Final = 10.0  # five reports of an agent
POLICIES: Final = """\
backup_manager:
  storage: {{type: local, path: {root}/repository}}
  scheduling: {{timezone: UTC}}
policies:
  web:
    agent: web-1
    sources:
      - {{type: filesystem, paths: ["{root}/web"], exclude: ["*.tmp"]}}
      - {{type: sqlite, name: shop, path: "{root}/shop.db"}}
    retention: {{keep_last: 2}}
    verification: {{each_run: true, checks: [completeness]}}
  slow:
    agent: web-1
    sources:
      - {{type: filesystem, paths: ["{root}/web"]}}
    hooks:
      before:
        - command: [sh, -c, "touch {root}/began-$BACKSTAY_JOB; while [ ! -e {root}/go ]; do sleep 0.05; done"]
  mail:
    agent: mail-1
    sources:
      - {{type: filesystem, paths: ["{root}/web"]}}
"""


@dataclass(slots=True, kw_only=True)
class AgentProcess:
    """`backstay agent run` in a process of its own."""

    process: subprocess.Popen[bytes]
    printed: Path

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self, within_s: float = 60) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)

    def said(self) -> str:
        return self.printed.read_text(errors="replace")


@dataclass(slots=True, kw_only=True)
class World:
    """The service, where it answers, and what it needs to be stopped and started again."""

    root: Path
    service: Service
    address: str = ""
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _processes: list[AgentProcess] = field(default_factory=list)

    # -- the server

    def serve(self, port: int = 0) -> None:
        service, ready = self.service, threading.Event()
        authority = service.access.agents.authority
        made = own_certificate(authority, service.data_dir, ["127.0.0.1"], clock=service.clock, random=service.random)
        tls = Tls(certificate=made, key=made, clients=authority.certificate)
        self._stop = threading.Event()

        def tell(address: str) -> None:
            self.address = address
            ready.set()

        self._thread = threading.Thread(
            target=lambda: run(service, port=port, tls=tls, ready=tell, stopped=self._stop.is_set), daemon=True
        )
        self._thread.start()
        assert ready.wait(60)

    def go_away(self) -> None:
        assert self._thread is not None
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def authority(self) -> str:
        return self.service.access.agents.authority.certificate

    # -- agents

    def invite(self, name: str) -> str:
        with self.service.catalog.session() as session:
            return self.service.access.agents.invite(session, by=MACHINE, name=name).text

    def revoke(self, name: str) -> None:
        with self.service.catalog.session() as session:
            self.service.access.agents.revoke(session, by=MACHINE, name=name)

    def joined(self, name: str) -> Home:
        """The directory of an agent that has joined, a new one each time."""
        number = len(list(self.root.glob(f"home-{name}-*")))
        home = Home.prepare(self.root / f"home-{name}-{number}")
        join(home, self.address, self.invite(name), authority=self.authority)
        return home

    def environ(self, **more: str) -> dict[str, str]:
        (self.root / "home").mkdir(exist_ok=True)
        return {
            "PYTHONPATH": str(SOURCE),
            "PATH": os.environ["PATH"],
            "HOME": str(self.root / "home"),
            "BACKSTAY_PASSWORD": PASSWORD,
            **more,
        }

    def command(self, *words: str, given: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "backstay", *words],
            env=self.environ(**more),
            input=given,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def agent(self, home: Home, *options: str, repository: Path | None = None) -> AgentProcess:
        """A process of this agent, which works once this returns."""
        printed = self.root / f"printed-{len(self._processes)}"
        words = ["-r", str(repository or self.root / "repository"), "agent", "run", "--dir", str(home.path), *options]
        with printed.open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "backstay", *words],
                env=self.environ(),
                stdin=subprocess.DEVNULL,
                stdout=err,
                stderr=err,
            )
        found = AgentProcess(process=process, printed=printed)
        self._processes.append(found)
        wait_until(lambda: "works for" in found.said() or process.poll() is not None, found.said)
        return found

    # -- jobs

    def ask(self, policy: str, **arguments: Any) -> str:
        return self.service.jobs.create("backup", arguments, actor="ann", policy=policy, scope=f"/policy/{policy}").id

    def job(self, ident: str) -> Job:
        return self.service.jobs.get(ident)

    def ended(self, ident: str) -> Job:
        wait_until(lambda: self.job(ident).status in FINISHED, lambda: self.told(ident))
        return self.job(ident)

    def told(self, ident: str) -> str:
        job = self.job(ident)
        lines = [line.message for line in self.service.jobs.lines(ident)]
        return f"{job.status} {job.worker} {job.error} {lines} {[one.said() for one in self._processes]}"

    def end(self) -> None:
        for one in self._processes:
            one.kill()


def wait_until(holds: Callable[[], bool], told: Callable[[], object], within_s: float = 120) -> None:
    """Until something holds; what is told if it never does."""
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, told()
        time.sleep(0.05)


@contextmanager
def serving(root: Path) -> Iterator[World]:
    """A world in an empty directory."""
    (root / "web").mkdir()
    for number in range(5):
        (root / "web" / f"page-{number}.html").write_text(f"page {number} " * 50)
    (root / "web" / "left-out.tmp").write_text("no")
    with closing(sqlite3.connect(root / "shop.db")) as shop:
        shop.execute("CREATE TABLE orders (number INTEGER)")
    policies = root / "policies.yaml"
    policies.write_text(POLICIES.format(root=root))
    Repository.create(str(root / "repository"), password=PASSWORD).close()
    environ: Mapping[str, str] = {"HOME": str(root), "BACKSTAY_PASSWORD": PASSWORD}
    options = ServiceOptions(data_dir=root / "data", config=policies, queues=(), agent_lease_s=LEASE_S, sweep_s=0.2)
    with Service.open(options, environ=environ, warn=lambda _: None) as service:
        service.start()
        world = World(root=root, service=service)
        try:
            world.serve()
            yield world
            world.go_away()
        finally:
            world.end()
            service.stop()


def document(text: str) -> Any:
    """The one document of a command with --json."""
    return json.loads(text)
