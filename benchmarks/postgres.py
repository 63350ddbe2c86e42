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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.postgres.servers import Server

from backstay.operations.archiving.wal_file import Archiver, Offered
from backstay.repository.repository import Repository
from backstay.storage.registry import open_backend
from backstay.trust.secrets import Secret
from benchmarks.measured import BACKSTAY, run, surroundings

NAME = "bench"
PUSHED = 12  # segments of 16 MiB, by each way
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

    def push(self) -> None:
        """Time single files on their way into the repository; the ways take turns, each with segments of its own."""
        segments = self._linked_segments(4 * PUSHED)
        secret = Secret.passphrase(self.environment["BACKSTAY_PASSWORD"])
        with (
            self._service("--ahead", "0") as command,
            open_backend(self.environment["BACKSTAY_REPO"]) as backend,
            Repository.open(backend, secret) as repository,
        ):
            archiver = Archiver(repository, NAME)
            ways: dict[str, Callable[[Path], object]] = {
                "push, the program": lambda path: self.backstay("pg", "archive", "--name", NAME, str(path)),
                "push, in one process": lambda path: _store(archiver, path),
                "push, resident": command,
            }
            found: dict[str, list[float]] = {what: [] for what in ways}
            for _ in range(PUSHED):
                for what, way in ways.items():
                    found[what].append(_seconds(way, next(segments)))
        with self._service("--ahead", str(PUSHED)) as command:
            first, *others = [next(segments) for _ in range(PUSHED)]
            for path in (first, *others):
                (path.parent / f"archive_status/{path.name}.ready").touch()
            command(first)
            while not all(list((self.place / "repo/wal").rglob(path.name)) for path in others):
                time.sleep(0.1)
            time.sleep(0.5)  # the last of them is stored, and noted
            found["push, resident, stored ahead"] = [_seconds(command, path) for path in others]
        for what, seconds in found.items():
            self.note_each(what, seconds)

    def note_each(self, what: str, seconds: list[float]) -> None:
        """Note what each segment took."""
        least, median, most = (round(x * 1000, 1) for x in (min(seconds), statistics.median(seconds), max(seconds)))
        self.figures[what] = {"least_ms": least, "median_ms": median, "most_ms": most}
        print(f"{what:28} {median:7.1f} ms a segment", file=sys.stderr)

    def _linked_segments(self, wanted: int) -> Iterator[Path]:
        """The oldest segments of the server, which nobody stored, in what looks like a data directory of their own."""
        place = self.place / "linked/pg_wal"
        (place / "archive_status").mkdir(parents=True)
        current = self.server.sql("select pg_walfile_name(pg_current_wal_lsn())")
        whole = sorted((self.server.data / "pg_wal").glob("0" * 7 + "1" + "?" * 16))
        complete = [path for path in whole if path.name < current][:wanted]
        if len(complete) < wanted:
            raise SystemExit(f"only {len(complete)} segments are there, and {wanted} are needed: give a larger --scale")
        for path in complete:
            (place / path.name).hardlink_to(path)
        return iter([place / path.name for path in complete])

    @contextmanager
    def _service(self, *arguments: str) -> Iterator[Callable[[Path], object]]:
        """`pg archive --serve` while it runs; a call does what archive_command does."""
        words = [*BACKSTAY, "pg", "archive", "--serve", "--name", NAME, "--user", "nobody"]
        process = subprocess.Popen(
            [*words, "--socket", str(self.place / "run/bench"), *arguments],
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        try:
            told = next(line for line in process.stdout if line.startswith("archive_command"))
            command = told.partition("'")[2].rstrip("'\n")
            yield lambda path: subprocess.run(["/bin/sh", "-c", command.replace("%p", str(path))], check=True)
        finally:
            process.terminate()
            process.wait(30)

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


def _seconds(way: Callable[[Path], object], path: Path) -> float:
    begun = time.perf_counter()
    way(path)
    return time.perf_counter() - begun


def _store(archiver: Archiver, path: Path) -> None:
    with path.open("rb") as file:
        archiver.store(Offered(path.name, file.fileno(), None))


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
        for segment in bench.write_wal(seconds=15):
            bench.backstay("pg", "archive", "--name", NAME, str(segment))
        bench.note_each("get", bench.get(Path(memory) / "streamed"))
    bench.measure("verify, all data read", "verify", "--read-data")
    bench.push()


def main() -> int:
    parser = argparse.ArgumentParser(description="Time backups and recoveries of a pgbench database.")
    parser.add_argument("--scale", type=int, default=80, help="of pgbench; 80 is 1.2 GB, and there are 0.6 GB more")
    parser.add_argument("--scratch", type=Path, default=None)
    parser.add_argument("--only-push", action="store_true", help="time only how WAL gets into the repository")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="backstay-pg-", dir=options.scratch, ignore_cleanup_errors=True) as made:
        os.chmod(made, 0o755)  # noqa: PTH101 - the server does not run as root
        bench = Bench(Path(made), options.scale)
        try:
            bench.load()
            if options.only_push:
                bench.push()
            else:
                steps(bench)
        finally:
            bench.server.stop()
    print(json.dumps(bench.figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
