"""Cost per file and memory as the number of files grows: `python -m benchmarks.many_files 100000 1000000`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.measured import BACKSTAY, Measured, empty, run, surroundings

PER_DIRECTORY = 1000


def make_tree(directory: Path, files: int) -> None:
    """Tiny files, each with other bytes, a thousand in a directory."""
    for number in range(files):
        place = directory / f"{number // PER_DIRECTORY:06d}"
        if number % PER_DIRECTORY == 0:
            place.mkdir(parents=True)
        (place / f"{number % PER_DIRECTORY:03d}").write_bytes(b"file number %d\n" % number)


def measure(files: int, scratch: Path) -> dict[str, Measured]:
    """First and unchanged backup of so many files."""
    place = empty(scratch / str(files))
    make_tree(place / "tree", files)
    environment = surroundings(place, BACKSTAY_PASSWORD="only-for-measuring")
    program = [*BACKSTAY, "-q", "-r", str(place / "repository")]
    run([*program, "init"], environment=environment, directory=place)
    backup = [*program, "backup", str(place / "tree")]
    times = {
        "first": run(backup, environment=environment, directory=place),
        "unchanged": run(backup, environment=environment, directory=place),
    }
    empty(place).rmdir()
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description="Cost per file and peak memory for several numbers of files.")
    parser.add_argument("files", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--scratch", type=Path, default=None, help="where the files are made")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found: list[dict[str, float | int | str]] = []
    with tempfile.TemporaryDirectory(prefix="backstay-many-files-", dir=options.scratch) as scratch:
        for files in options.files:
            for step, measured in measure(files, Path(scratch)).items():
                found.append(
                    {
                        "files": files,
                        "step": step,
                        "seconds": round(measured.seconds, 3),
                        "microseconds_per_file": round(measured.seconds / files * 1e6, 1),
                        "peak_bytes": measured.peak_bytes,
                    }
                )
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    print(f"{'files':>10} {'step':10} {'seconds':>9} {'µs a file':>10} {'peak MiB':>9}")
    for row in found:
        peak, each = int(row["peak_bytes"]) / (1 << 20), row["microseconds_per_file"]
        print(f"{row['files']:>10} {row['step']:10} {row['seconds']:9.2f} {each:10.1f} {peak:9.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
