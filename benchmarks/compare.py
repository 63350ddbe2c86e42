"""Time backstay beside restic and borg on one tree: `python -m benchmarks.compare TREE`.

The programs that are installed take turns, so that a machine that becomes slower does so for all; the medians of
the rounds are compared. Each gets the same encryption strength and its own defaults otherwise.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.measured import BACKSTAY, Measured, ProgramFailed, empty, run, surroundings, tree_size

SECRET = "only-for-measuring"
STEPS = ("first", "unchanged", "verify", "restore")


class Program(Protocol):
    """How a backup program is called; every command is a list of arguments."""

    name: str

    def is_installed(self) -> bool: ...

    def prepare(self, repository: Path | str) -> list[str]: ...

    def back_up(self, repository: Path | str, tree: Path) -> list[str]: ...

    def verify(self, repository: Path | str) -> list[str]: ...

    def restore(self, repository: Path | str, target: Path) -> list[str]: ...


class Backstay:
    """This checkout."""

    name = "backstay"

    def is_installed(self) -> bool:
        return True

    def _command(self, repository: Path | str, *arguments: str) -> list[str]:
        return [*BACKSTAY, "-q", "-r", str(repository), *arguments]

    def prepare(self, repository: Path | str) -> list[str]:
        return self._command(repository, "init")

    def back_up(self, repository: Path | str, tree: Path) -> list[str]:
        return self._command(repository, "backup", str(tree))

    def verify(self, repository: Path | str) -> list[str]:
        return self._command(repository, "verify", "--read-data")

    def restore(self, repository: Path | str, target: Path) -> list[str]:
        return self._command(repository, "restore", "latest", "--to", str(target))


class Restic:
    """restic.net"""

    name = "restic"

    def is_installed(self) -> bool:
        return shutil.which("restic") is not None

    def _command(self, repository: Path | str, *arguments: str) -> list[str]:
        return ["restic", "--quiet", "--repo", str(repository), *arguments]

    def prepare(self, repository: Path | str) -> list[str]:
        return self._command(repository, "init")

    def back_up(self, repository: Path | str, tree: Path) -> list[str]:
        return self._command(repository, "backup", str(tree))

    def verify(self, repository: Path | str) -> list[str]:
        return self._command(repository, "check", "--read-data")

    def restore(self, repository: Path | str, target: Path) -> list[str]:
        return self._command(repository, "restore", "latest", "--target", str(target))


class Borg:
    """borgbackup.org; an archive of each name exists once, so they are numbered."""

    name = "borg"

    def __init__(self) -> None:
        self._archives = 0

    def is_installed(self) -> bool:
        return shutil.which("borg") is not None

    def prepare(self, repository: Path | str) -> list[str]:
        self._archives = 0
        return ["borg", "init", "--encryption", "repokey-blake2", str(repository)]

    def back_up(self, repository: Path | str, tree: Path) -> list[str]:
        self._archives += 1
        return ["borg", "create", f"{repository}::archive{self._archives}", str(tree)]

    def verify(self, repository: Path | str) -> list[str]:
        return ["borg", "check", "--verify-data", str(repository)]

    def restore(self, repository: Path | str, target: Path) -> list[str]:
        script = 'cd "$1" && exec borg extract "$2"'  # it extracts into the working directory
        return ["sh", "-c", script, "sh", str(target), f"{repository}::archive{self._archives}"]


PROGRAMS: tuple[Program, ...] = (Backstay(), Restic(), Borg())


@dataclass(slots=True)
class Series:
    """All rounds of one program."""

    times: dict[str, list[Measured]] = field(default_factory=lambda: {step: [] for step in STEPS})
    stored: int = 0

    def seconds(self, step: str) -> float:
        return statistics.median(measured.seconds for measured in self.times[step])

    def peak(self, step: str) -> int:
        return max(measured.peak_bytes for measured in self.times[step])


def one_round(program: Program, tree: Path, scratch: Path) -> Iterator[tuple[str, Measured]]:
    """Every step once, in a repository of its own."""
    repository, target = scratch / "repository", scratch / "restored"
    shutil.rmtree(repository, ignore_errors=True)
    environment = surroundings(
        scratch,
        BACKSTAY_PASSWORD=SECRET,
        RESTIC_PASSWORD=SECRET,
        BORG_PASSPHRASE=SECRET,
        BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK="yes",
    )

    def measure(command: Sequence[str]) -> Measured:
        return run(command, environment=environment, directory=scratch)

    measure(program.prepare(repository))
    yield "first", measure(program.back_up(repository, tree))
    yield "unchanged", measure(program.back_up(repository, tree))
    yield "verify", measure(program.verify(repository))
    yield "restore", measure(program.restore(repository, empty(target)))


def compare(programs: Sequence[Program], tree: Path, scratch: Path, rounds: int) -> dict[str, Series]:
    """All rounds; the programs take turns."""
    series = {program.name: Series() for program in programs}
    for number in range(1, rounds + 1):
        for program in programs:
            print(f"round {number} of {rounds}: {program.name}", file=sys.stderr)
            place = empty(scratch / program.name)
            for step, measured in one_round(program, tree, place):
                series[program.name].times[step].append(measured)
            series[program.name].stored = tree_size(place / "repository")
            shutil.rmtree(place)
    return series


def figures(series: dict[str, Series]) -> dict[str, object]:
    """Each program's medians; a ratio is backstay's time by the other's."""
    ours = series["backstay"]
    return {
        name: {
            "stored_bytes": found.stored,
            "steps": {
                step: {
                    "seconds": round(found.seconds(step), 3),
                    "peak_bytes": found.peak(step),
                    "ratio": round(ours.seconds(step) / found.seconds(step), 3),
                    "all_seconds": [round(measured.seconds, 3) for measured in found.times[step]],
                }
                for step in STEPS
            },
        }
        for name, found in series.items()
    }


def document(series: dict[str, Series], tree: Path, rounds: int) -> dict[str, object]:
    """Everything as one JSON object."""
    return {"tree": str(tree), "tree_bytes": tree_size(tree), "rounds": rounds, "programs": figures(series)}


def table(series: dict[str, Series]) -> str:
    """Medians, ratios and memory for people."""
    ours = series["backstay"]
    lines = [f"{'':10} {'step':10} {'seconds':>9} {'backstay/it':>12} {'peak MiB':>9}"]
    for name, found in series.items():
        for step in STEPS:
            ratio = ours.seconds(step) / found.seconds(step)
            peak = found.peak(step) / (1 << 20)
            lines.append(f"{name:10} {step:10} {found.seconds(step):9.2f} {ratio:12.2f} {peak:9.0f}")
        lines.append(f"{name:10} {'stored':10} {found.stored / (1 << 20):9.1f} MiB {ours.stored / found.stored:8.2f}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Time backstay beside restic and borg, as far as they are installed.")
    parser.add_argument("tree", type=Path, help="what to back up; it is only read")
    parser.add_argument("--scratch", type=Path, default=None, help="where repositories and restored files go")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=[program.name for program in PROGRAMS], help="besides backstay")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    options = parser.parse_args()
    wanted = [p for p in PROGRAMS if p.name == "backstay" or options.only is None or p.name in options.only]
    programs = [program for program in wanted if program.is_installed()]
    tree = options.tree.resolve(strict=True)
    with tempfile.TemporaryDirectory(prefix="backstay-compare-", dir=options.scratch) as scratch:
        try:
            series = compare(programs, tree, Path(scratch), options.rounds)
        except ProgramFailed as error:
            print(error, file=sys.stderr)
            return 1
    print(json.dumps(document(series, tree, options.rounds), indent=2) if options.json else table(series))
    return 0


if __name__ == "__main__":
    sys.exit(main())
