"""How many requests a second the interface answers, and how long the slowest wait.

    python -m benchmarks.api [--backups 100000] [--readers 100] [--seconds 10] [--rate 5]

A catalog with so many backups, one server in a process of its own, and readers in another that ask for pages of the
list, for single backups and for jobs, each over one connection that stays open. Without `--rate` each asks again as
soon as it has its answer: as much is answered as can be, and the waits are those of a full queue. With it each asks so
many times a second, whatever comes back; a wait counts from the moment at which the request was due.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from backstay.catalog.database import Catalog
from backstay.catalog.models import Backup, Job
from backstay.core.ids import new_ulid

TOKEN = "bst_benchmark_0123456789abcdefghijklmnopqrstuvwxyz"
POLICIES = 50


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backups", type=int, default=100_000)
    parser.add_argument("--readers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, help="requests a second of each reader; as fast as it goes if not given")
    parser.add_argument("--page", type=int, default=20, help="items of each page that is asked for")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="backstay-api-") as place:
        root = Path(place)
        ids = filled(root / "data", options.backups)
        server, address = serving(root)
        try:
            load = Load(address, tuple(ids), options.readers, options.page, options.rate)
            found = measured(load, options.seconds, server.pid)
            print(json.dumps(found))
        finally:
            server.terminate()
            server.wait(20)
    return 0


def filled(data: Path, count: int) -> list[str]:
    """A catalog with so many backups, and a tenth as many jobs; the ids of the backups."""
    data.mkdir(mode=0o700, exist_ok=True)
    start, ids, rng = datetime(2026, 1, 1, tzinfo=UTC), [], random.Random(7)
    with Catalog.open(f"sqlite:///{data}/catalog.db") as catalog:
        catalog.migrate()
        for begun in range(0, count, 5000):
            rows = [backup(start + timedelta(minutes=5 * n), n, rng) for n in range(begun, min(begun + 5000, count))]
            ids += [row["id"] for row in rows]
            with catalog.session() as session:
                session.execute(insert(Backup), rows)
                session.execute(insert(Job), [job(row) for row in rows[::10]])
    return ids


def backup(when: datetime, number: int, rng: random.Random) -> dict[str, Any]:
    policy = f"policy-{number % POLICIES}"
    return {
        "id": new_ulid(int(when.timestamp() * 1e9), rng.randbytes),
        "repository": "0" * 32,
        "policy": policy,
        "source": f"{policy}-files",
        "type": "incremental",
        "host": f"host-{number % 7}",
        "time": when,
        "recorded_at": when,
        "description": "nightly",
        "tags": ["production"],
        "paths": ["/srv/data", "/etc"],
        "files": 1000 + number % 100,
        "bytes": 10**9,
        "stored_bytes": 10**6,
        "held": False,
        "damaged": False,
        "duration_s": 12.5,
    }


def job(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": new_ulid(int(row["time"].timestamp() * 1e9) + 1_000_000),
        "kind": "backup",
        "status": "succeeded",
        "queue": "backup",
        "priority": 0,
        "policy": row["policy"],
        "scope": f"/policy/{row['policy']}",
        "actor": "system",
        "arguments": {"type": "incremental"},
        "result": {"backups": [row["id"]]},
        "backup_id": row["id"],
        "created_at": row["time"],
        "started_at": row["time"],
        "finished_at": row["time"],
        "settled_at": row["time"],
        "attempts": 1,
        "cancel_asked": False,
    }


def serving(root: Path) -> tuple[subprocess.Popen[str], str]:
    """A server as anybody starts it, but with limits that let it be measured; its address."""
    (root / "policies.yaml").write_text(
        f"backup_manager:\n  storage: {{type: local, path: {root}/repository}}\n"
        "  access: {rate_limits: {api: 1000000/min}}\n"
    )
    environ = {key: value for key, value in os.environ.items() if not key.startswith("BACKSTAY_")}
    environ |= {"HOME": str(root), "BACKSTAY_ADMIN_TOKEN": TOKEN, "BACKSTAY_PASSWORD": "x"}
    arguments = [sys.executable, "-m", "backstay", "--json", "serve", "--port", "0", "--data-dir", str(root / "data")]
    server = subprocess.Popen(
        [*arguments, "--config", str(root / "policies.yaml")], env=environ, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    return server, json.loads(server.stdout.readline())["address"]


# -- readers


@dataclass(frozen=True)
class Load:
    """Who asks for what; `rate` is of each reader, in requests per second."""

    address: str
    ids: Sequence[str]
    readers: int
    page: int
    rate: float | None

    @property
    def place(self) -> tuple[str, int]:
        host, _, port = self.address.removeprefix("http://").rpartition(":")
        return host, int(port)


def measured(load: Load, seconds: float, server: int) -> dict[str, Any]:
    """What so many readers get within so many seconds, after a moment in which the server gets warm."""
    asyncio.run(_all(load, min(2.0, seconds)))
    before = processor_s(server)
    found = asyncio.run(_all(load, seconds))
    used = processor_s(server) - before
    times = sorted(took for reader in found for took in reader)
    return {
        "backups": len(load.ids),
        "readers": load.readers,
        "page": load.page,
        "offered_per_s": None if load.rate is None else round(load.rate * load.readers),
        "requests_per_s": round(len(times) / seconds),
        "server_ms_of_processor": round(used * 1000 / len(times), 2),
        "median_ms": round(statistics.median(times) * 1000, 1),
        "p99_ms": round(times[int(len(times) * 0.99)] * 1000, 1),
        "worst_ms": round(times[-1] * 1000, 1),
    }


def processor_s(pid: int) -> float:
    """Seconds of processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _all(load: Load, seconds: float) -> list[list[float]]:
    until = time.monotonic() + seconds
    return await asyncio.gather(*(_reader(load, until, number) for number in range(load.readers)))


async def _reader(load: Load, until: float, number: int) -> list[float]:
    rng, took = random.Random(number), list[float]()
    reader, writer = await asyncio.open_connection(*load.place)
    pause = 0.0 if load.rate is None else 1 / load.rate
    due = time.monotonic() + rng.random() * pause
    while max(due, time.monotonic()) < until:
        if load.rate is None:
            due = time.monotonic()
        elif (early := due - time.monotonic()) > 0:
            await asyncio.sleep(early)
        writer.write(f"GET {_path(load, rng)} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 200"), head
        await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
        took.append(time.monotonic() - due)
        due += pause
    writer.close()
    return took


def _path(load: Load, rng: random.Random) -> str:
    """One of the pages that people look at."""
    return rng.choice(
        (
            f"/api/backup/list?limit={load.page}",
            f"/api/backup/list?limit={load.page}&policy=policy-{rng.randrange(POLICIES)}",
            f"/api/backup/{rng.choice(load.ids)}",
            f"/api/backup/jobs?limit={load.page}",
        )
    )


if __name__ == "__main__":
    sys.exit(main())
