"""Time backups and recoveries of a pgbench database: `python -m benchmarks.postgres`.

The server is that of the development packages. Its database is made anew: pgbench's, and a table of texts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.postgres.servers import Server

from benchmarks.measured import BACKSTAY, run, surroundings

NAME = "bench"
ROWS = "update pgbench_accounts set abalance = abalance + 1 where aid"


class Bench:
    """A server, a repository, and what was measured."""

    def __init__(self, place: Path, scale: int) -> None:
        self.server = Server(place / "servers").create(
            shared_buffers="512MB", fsync="on", max_wal_size="4GB", autovacuum="off"
        )
        self.place = place
        self.environment = surroundings(
            place, BACKSTAY_PASSWORD="only-for-measuring", BACKSTAY_REPO=str(place / "repo")
        )
        self.scale = scale
        self.figures: dict[str, dict[str, float]] = {}
        self.backstay("init")

    def backstay(self, *arguments: str) -> tuple[float, float, float]:
        """Seconds, processor seconds and MiB of one command."""
        measured = run([*BACKSTAY, "-q", *arguments], environment=self.environment, directory=self.place)
        return measured.seconds, measured.processor_seconds, measured.peak_bytes / (1 << 20)

    def measure(self, what: str, *arguments: str) -> None:
        before = self._stored()
        seconds, processor, memory = self.backstay(*arguments)
        self.figures[what] = {
            "seconds": round(seconds, 2),
            "processor_seconds": round(processor, 2),
            "peak_mib": round(memory),
            "stored_mb": round((self._stored() - before) / 1e6, 1),
        }
        print(f"{what:28} {seconds:7.2f} s {processor:7.2f} cpu {memory:6.0f} MiB", file=sys.stderr)

    def _stored(self) -> int:
        places = (self.place / "repo" / part for part in ("packs", "meta", "index"))
        return sum(path.stat().st_size for place in places for path in place.rglob("*") if path.is_file())

    def load(self) -> None:
        where = ("-h", "127.0.0.1", "-p", self.server.port, "-U", "postgres")
        self.server.tool("pgbench", *where, "-i", "-q", "-s", self.scale, "postgres")
        self.server.sql(
            "create table texts as select n, md5(n::text) a, md5((n * 7)::text) b from generate_series(1, 2500000) n"
        )
        self.server.sql("vacuum freeze")
        self.server.sql("checkpoint")

    def write_wal(self, seconds: int) -> list[Path]:
        """Let pgbench write for a while; the segments that are complete then, behind those of the last base backup."""
        begin = self.server.sql("select pg_walfile_name(pg_switch_wal())")
        where = ("-h", "127.0.0.1", "-p", self.server.port, "-U", "postgres")
        self.server.tool("pgbench", *where, "-n", "-c", 4, "-T", seconds, "postgres")
        end = self.server.sql("select pg_walfile_name(pg_switch_wal())")
        found = (self.server.data / "pg_wal").glob("0" * 7 + "1" + "?" * 16)
        return sorted(path for path in found if begin <= path.name <= end)

    def archive(self, segments: list[Path]) -> list[float]:
        """Seconds of single calls as archive_command makes them, each with another segment."""
        found = []
        for segment in segments:
            begun = time.perf_counter()
            self.backstay("pg", "archive", "--name", NAME, str(segment))
            found.append(time.perf_counter() - begun)
        return found

    def get(self, data: Path) -> list[float]:
        """Seconds of single calls as restore_command makes them, while WAL is brought to a restored directory."""
        command = [*BACKSTAY, "pg", "restore", "--name", NAME, "--to", str(data), "--wal", "stream"]
        with subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as serving:
            assert serving.stdout is not None
            assert any(b"WAL is brought" in line for line in serving.stdout)
            script, taken = data / "backstay_wal" / "get", data / "pg_wal" / "RECOVERYXLOG"
            found = []
            for name in (script.parent / "segments").read_text().split():
                begun = time.perf_counter()
                subprocess.run(["sh", script, name, taken], check=True)
                found.append(time.perf_counter() - begun)
            serving.terminate()
        return found


def steps(bench: Bench) -> None:
    url = bench.server.url

    def backup(what: str) -> None:
        bench.measure(what, "pg", "backup", url, "--name", NAME)

    backup("full")
    backup("incremental, idle")
    bench.server.sql(f"{ROWS} % 7919 = 3 and aid <= 7919000; {ROWS} between 1000 and 11000")
    backup("incremental, 11 000 rows")
    bench.measure("full again", "pg", "backup", url, "--name", NAME, "--full")
    with tempfile.TemporaryDirectory(prefix="backstay-pg-", dir="/dev/shm") as memory:
        restore = ("pg", "restore", "--name", NAME, "--to", f"{memory}/data")
        bench.measure("restore to memory", *restore)
        bench.measure("delta, nothing changed", *restore, "--delta")
        bench.server.sql(f"{ROWS} % 7919 = 3 and aid <= 7919000; {ROWS} between 1000 and 11000")
        backup("incremental, again")
        bench.measure("delta, 11 000 rows", *restore, "--delta")
        segments = bench.write_wal(seconds=15)
        calls = {
            "archive one segment": bench.archive(segments),
            "get one segment": bench.get(Path(memory) / "streamed"),
        }
    for what, seconds in calls.items():
        bench.figures[what] = {"seconds": round(statistics.median(seconds), 4), "most": round(max(seconds), 4)}
        print(f"{what:28} {statistics.median(seconds):7.4f} s of {len(seconds)}", file=sys.stderr)
    bench.measure("verify, all data read", "verify", "--read-data")


def main() -> int:
    parser = argparse.ArgumentParser(description="Time backups and recoveries of a pgbench database.")
    parser.add_argument("--scale", type=int, default=80, help="of pgbench; 80 is 1.2 GB, and there are 0.6 GB more")
    parser.add_argument("--scratch", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="backstay-pg-", dir=options.scratch, ignore_cleanup_errors=True) as made:
        os.chmod(made, 0o755)  # noqa: PTH101 - the server does not run as root
        bench = Bench(Path(made), options.scale)
        try:
            bench.load()
            steps(bench)
        finally:
            bench.server.stop()
    print(json.dumps(bench.figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
