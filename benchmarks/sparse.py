"""Back up and restore one sparse file of 1 TiB: `python -m benchmarks.sparse`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.measured import BACKSTAY, Measured, run, surroundings

SIZE = 1 << 40
EXTENTS = 64
EXTENT = 1 << 20


def make_file(path: Path, size: int) -> None:
    """A file of holes with some data at even distances."""
    with path.open("wb") as file:
        file.truncate(size)
        for number in range(EXTENTS):
            file.seek(number * (size // EXTENTS))
            file.write(os.urandom(EXTENT))


def same(one: Path, other: Path, size: int) -> bool:
    """Whether size, data and the room on disk agree, without reading the holes."""
    for number in range(EXTENTS):
        with one.open("rb") as left, other.open("rb") as right:
            left.seek(number * (size // EXTENTS))
            right.seek(number * (size // EXTENTS))
            if left.read(EXTENT + 1) != right.read(EXTENT + 1):
                return False
    return one.stat().st_size == other.stat().st_size and other.stat().st_blocks <= one.stat().st_blocks + 4096


def measure(scratch: Path, size: int) -> tuple[dict[str, Measured], bool]:
    tree = scratch / "tree"
    tree.mkdir()
    make_file(tree / "disk", size)
    environment = surroundings(scratch, BACKSTAY_PASSWORD="only-for-measuring")
    program = [*BACKSTAY, "-q", "-r", str(scratch / "repository")]
    restored = scratch / "restored"
    commands = {
        "first": ["backup", str(tree)],
        "unchanged": ["backup", str(tree)],
        "verify": ["verify", "--read-data"],
        "restore": ["restore", "latest", "--to", str(restored)],
    }
    run([*program, "init"], environment=environment, directory=scratch)
    times = {
        step: run([*program, *command], environment=environment, directory=scratch)
        for step, command in commands.items()
    }
    return times, same(tree / "disk", restored / tree.relative_to("/") / "disk", size)


def main() -> int:
    parser = argparse.ArgumentParser(description="Back up and restore one sparse file.")
    parser.add_argument("--size", type=int, default=SIZE, help="bytes; 1 TiB unless told")
    parser.add_argument("--scratch", type=Path, default=None, help="a file system that keeps holes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="backstay-sparse-", dir=options.scratch) as scratch:
        times, is_same = measure(Path(scratch).resolve(), options.size)
    if options.json:
        steps = {
            step: {"seconds": round(found.seconds, 3), "peak_bytes": found.peak_bytes} for step, found in times.items()
        }
        print(json.dumps({"size": options.size, "is_same": is_same, "steps": steps}, indent=2))
    else:
        for step, found in times.items():
            print(f"{step:10} {found.seconds:8.2f} s {found.peak_bytes / (1 << 20):8.0f} MiB")
        print("restored as it was" if is_same else "RESTORED DIFFERENTLY")
    return 0 if is_same else 1


if __name__ == "__main__":
    sys.exit(main())
