"""Pages whose `sh` blocks are run, in order, by one shell, as a reader would who begins with an empty home."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import tests

ROOT = Path(tests.__file__).parents[1]
LONGEST_S = 280  # below the limit of a test: who hangs is told with its output
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LAUNCHER = f'#!/bin/sh\nPYTHONPATH={ROOT / "src"} exec {sys.executable} -m backstay "$@"\n'


def blocks_of(page: str) -> list[str]:
    """The `sh` blocks of a page, by its path in the project."""
    return _BLOCK.findall((ROOT / page).read_text())


def run_script(
    script: str,
    *,
    home: Path,
    programs: Path,
    environ: Mapping[str, str],
    path: tuple[Path, ...] = (),
    others: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a script; whatever it started ends with it.

    `programs` is an empty directory for `backstay` and `others` (name -> text), and comes first in PATH, then `path`.
    """
    for name, text in {"backstay": _LAUNCHER, **(others or {})}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    places = os.pathsep.join([str(programs), *map(str, path), os.environ["PATH"]])
    shell = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=home,
        env={"HOME": str(home), "PATH": places, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    ended = True
    try:
        stdout, stderr = shell.communicate(timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        ended = False
        os.killpg(shell.pid, signal.SIGKILL)
        stdout, stderr = shell.communicate()
    with suppress(ProcessLookupError):  # nothing is left of it
        os.killpg(shell.pid, signal.SIGTERM)
    assert ended, f"the page was not through in time\n{stdout[-3000:]}\n{stderr[-3000:]}"
    return subprocess.CompletedProcess(script, shell.returncode, stdout, stderr)
