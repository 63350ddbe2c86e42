"""Time backstay beside restic on an S3 server of this machine: `python -m benchmarks.object_store`.

The server is SeaweedFS from the development packages, on loopback. Two trees take turns: random bytes, which fill
packs, and many small files. `--listing N` stores N empty objects instead and times one listing of all.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.cloud.servers import BUCKET, CREDENTIALS, seaweedfs

from backstay.storage.registry import open_backend
from benchmarks.compare import SECRET, STEPS, Backstay, Program, Restic, Series, figures
from benchmarks.measured import ProgramFailed, empty, run, surroundings


def large_tree(place: Path, mib: int) -> Path:
    """Bytes that do not compress, in files of 64 MiB."""
    place.mkdir()
    rng = random.Random(1)
    for number in range(0, mib, 64):
        (place / f"file-{number}").write_bytes(rng.randbytes(min(64, mib - number) << 20))
    return place


def small_tree(place: Path, files: int) -> Path:
    """Words, in files of a few kilobytes."""
    rng = random.Random(2)
    words = [rng.randbytes(rng.randrange(2, 8)).hex().encode() for _ in range(5000)]
    for number in range(files):
        path = place / f"{number % 97}" / f"{number % 31}" / f"file-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b" ".join(rng.choices(words, k=rng.randrange(10, 600))))
    return place


def address(program: Program, endpoint: str, name: str) -> str:
    """Where a program keeps a repository, in its own spelling."""
    if program.name == "restic":
        return f"s3:{endpoint}/{BUCKET}/{name}"
    return f"s3://{BUCKET}/{name}?endpoint={endpoint}"


def measure(endpoint: str, tree: Path, scratch: Path, rounds: int, label: str) -> dict[str, Series]:
    """All steps of both programs, which take turns."""
    programs: list[Program] = [Backstay(), Restic()]
    if not Restic().is_installed():
        print("restic is not installed: there is nothing to compare with", file=sys.stderr)
        programs.pop()
    series = {program.name: Series() for program in programs}
    for number in range(rounds):
        for program in programs:
            place = empty(scratch / program.name)
            secrets = {"BACKSTAY_PASSWORD": SECRET, "RESTIC_PASSWORD": SECRET, "AWS_REGION": "us-east-1"}
            environment = surroundings(place, **CREDENTIALS, **secrets)
            repository = address(program, endpoint, f"{label}-{program.name}-{number}")
            commands = {
                "first": program.back_up(repository, tree),
                "unchanged": program.back_up(repository, tree),
                "verify": program.verify(repository),
                "restore": program.restore(repository, empty(place / "restored")),
            }
            run(program.prepare(repository), environment=environment, directory=place)
            for step, command in commands.items():
                measured = run(command, environment=environment, directory=place)
                series[program.name].times[step].append(measured)
            shutil.rmtree(place)
    return series


def table(label: str, series: dict[str, Series]) -> str:
    lines = [f"{label:12}" + "".join(f"{name:>28}" for name in series) + f"{'ratio':>8}"]
    for step in STEPS:
        cells = [f"{s.seconds(step):12.2f} s {s.peak(step) >> 20:9} MiB" for s in series.values()]
        others = [s.seconds(step) for name, s in series.items() if name != "backstay"]
        ratio = f"{series['backstay'].seconds(step) / others[0]:8.2f}" if others else ""
        lines.append(f"{step:12}" + "".join(f"{cell:>28}" for cell in cells) + ratio)
    return "\n".join(lines)


def listing(endpoint: str, objects: int) -> dict[str, float]:
    """Seconds, and processor seconds of this program, to list so many objects."""
    os.environ.update(CREDENTIALS, AWS_REGION="us-east-1")
    with open_backend(f"s3://{BUCKET}/listing?endpoint={endpoint}") as backend:
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(lambda n: backend.store(f"packs/{n % 256:02x}/{n:064x}", b""), range(objects)):
                pass
        wall, processor = time.perf_counter(), time.process_time()
        found = sum(1 for _ in backend.list("packs/"))
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
    if found != objects:
        raise ProgramFailed(f"{found} objects were listed of {objects}")
    return {"objects": objects, "seconds": round(wall, 2), "processor_seconds": round(processor, 2)}


def main() -> int:
    parser = argparse.ArgumentParser(description="Time backstay beside restic on an S3 server of this machine.")
    parser.add_argument("--mib", type=int, default=1024, help="of data that does not compress")
    parser.add_argument("--files", type=int, default=20_000, help="small ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--listing", type=int, metavar="N", help="only list so many objects")
    parser.add_argument("--scratch", type=Path, default=None)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="backstay-s3-", dir=options.scratch) as made:
        scratch = Path(made)
        with seaweedfs(scratch / "server") as (endpoint, _):
            if options.listing:
                print(json.dumps(listing(endpoint, options.listing)))
                return 0
            trees = {
                "large files": large_tree(scratch / "large", options.mib),
                "small files": small_tree(scratch / "small", options.files),
            }
            measured = {
                label: measure(endpoint, tree, scratch, options.rounds, label.replace(" ", "-"))
                for label, tree in trees.items()
            }
    if options.json:
        print(json.dumps({label: figures(series) for label, series in measured.items()}, indent=2))
    else:
        print("\n".join(table(label, series) for label, series in measured.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
