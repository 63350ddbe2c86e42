"""Commits per second that wait for a receiver: `python -m benchmarks.synchronous`.

Ways take turns: nobody, pg_receivewal --synchronous, and Backstay's receiver that waits for the repository or for its
spool. Server, receiver and repository share the disk of the scratch directory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.postgres.servers import Server, as_nobody, installation

from backstay.core.quantities import plural
from benchmarks.measured import BACKSTAY, surroundings

CLIENTS: Final = (1, 8)
WAYS: Final = ("nobody", "pg_receivewal", "repo", "local")
STANDBY: Final = "backstay_bench"
_TPS: Final = re.compile(r"tps = ([0-9.]+)")


class Bench:
    """A server with pgbench's tables, and a repository."""

    def __init__(self, place: Path, scale: int) -> None:
        self.place = place
        self.server = Server(place / "servers").create(fsync="on", shared_buffers="128MB", max_wal_size="4GB")
        self.where = ("-h", "127.0.0.1", "-p", self.server.port, "-U", "postgres")
        self.server.tool("pgbench", *self.where, "-i", "-q", "-s", scale, "postgres")
        self.server.sql("checkpoint")
        self.environment = surroundings(
            place, BACKSTAY_PASSWORD="only-for-measuring", BACKSTAY_REPO=str(place / "repo")
        )
        subprocess.run([*BACKSTAY, "-q", "init"], env=self.environment, check=True)

    def commits(self, clients: int, seconds: int) -> float:
        """Commits per second of pgbench's simple updates."""
        how = ("-n", "-N", "-c", clients, "-j", min(clients, 2), "-T", seconds)
        found = _TPS.search(self.server.tool("pgbench", *self.where, *how, "postgres").stdout)
        assert found is not None
        return float(found[1])

    @contextmanager
    def received(self, way: str) -> Iterator[None]:
        """While a receiver runs, and commits wait for it."""
        if way == "nobody":
            yield
            return
        process = self._receivewal() if way == "pg_receivewal" else self._receive(way)
        try:
            self._until("select count(*) from pg_stat_replication where state = 'streaming'", "1")
            self._set(f"alter system set synchronous_standby_names = '{STANDBY}'")
            self._until("select sync_state from pg_stat_replication", "sync")
            yield
        finally:
            self._set("alter system reset synchronous_standby_names")
            process.terminate()
            process.wait(60)

    def _receivewal(self) -> subprocess.Popen[bytes]:
        target = self.place / "receivewal"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        self.server.own(target)
        login = f"host=127.0.0.1 port={self.server.port} user=postgres application_name={STANDBY}"
        command = [str(installation(18) / "bin" / "pg_receivewal"), "--synchronous", "-D", str(target), "-d", login]
        return subprocess.Popen(as_nobody(command), stderr=subprocess.DEVNULL, cwd="/")

    def _receive(self, ack: str) -> subprocess.Popen[bytes]:
        words = ["pg", "receive", self.server.url, "--name", "bench", "--synchronous", "--heartbeat", "0"]
        words += ["--ack", ack, "--spool", str(self.place / "spool")]
        return subprocess.Popen([*BACKSTAY, "-q", *words], env=self.environment, stderr=subprocess.DEVNULL)

    def _set(self, command: str) -> None:
        self.server.sql(command)
        self.server.sql("select pg_reload_conf()")

    def _until(self, query: str, value: str) -> None:
        until = time.monotonic() + 30
        while self.server.sql(query) != value:
            assert time.monotonic() < until, f"{query} does not give {value}"
            time.sleep(0.1)


def rounds(bench: Bench, count: int, seconds: int) -> dict[str, dict[str, float]]:
    """The median of each way and number of clients."""
    found: dict[tuple[str, int], list[float]] = {}
    for _ in range(count):
        for way in WAYS:
            with bench.received(way):
                for clients in CLIENTS:
                    found.setdefault((way, clients), []).append(bench.commits(clients, seconds))
    return {way: {plural(n, "client"): round(statistics.median(found[way, n])) for n in CLIENTS} for way in WAYS}


def main() -> int:
    parser = argparse.ArgumentParser(description="Count commits that wait for a receiver.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="of pgbench, for each way and number of clients")
    parser.add_argument("--scale", type=int, default=10, help="of pgbench")
    parser.add_argument("--scratch", type=Path, default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="backstay-sync-", dir=options.scratch, ignore_cleanup_errors=True) as made:
        os.chmod(made, 0o755)  # noqa: PTH101 - the server does not run as root
        bench = Bench(Path(made), options.scale)
        try:
            figures = rounds(bench, options.rounds, options.seconds)
        finally:
            bench.server.stop()
    if options.json:
        json.dump(figures, sys.stdout)
        return 0
    for way, rates in figures.items():
        print(f"{way:16}", *(f"{rate:8.0f} commits/s with {clients}" for clients, rate in rates.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
