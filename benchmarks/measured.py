"""Run a program and tell how long it took and how much memory it held."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BACKSTAY = (sys.executable, "-m", "backstay")


@dataclass(frozen=True, slots=True)
class Measured:
    """Wall and processor seconds, and the greatest resident memory of any one process in bytes."""

    seconds: float
    processor_seconds: float
    peak_bytes: int


class ProgramFailed(Exception):
    """A program that is measured did not succeed: there is nothing to compare."""


def run(command: Sequence[str], *, environment: Mapping[str, str], directory: Path) -> Measured:
    """Run to the end. Raises ProgramFailed with what the program wrote."""
    log = directory / "output.log"
    with log.open("wb") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(command, env=dict(environment), cwd=directory, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = log.read_text(errors="replace")[-2000:]
        raise ProgramFailed(f"{' '.join(command)} ended with {process.returncode}:\n{tail}")
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def surroundings(scratch: Path, **secrets: str) -> dict[str, str]:
    """An environment in which nothing of the user's own settings and caches takes part."""
    home = scratch / "home"
    home.mkdir(exist_ok=True)
    path = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "XDG_CACHE_HOME": str(scratch / "cache"),
        "PYTHONPATH": path,
        "LANG": "C.UTF-8",
        **secrets,
    }


def empty(directory: Path) -> Path:
    """The directory, made anew without anything in it."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def tree_size(directory: Path) -> int:
    """Bytes of all files below."""
    return sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
