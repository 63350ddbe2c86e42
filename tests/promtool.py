"""Prometheus' own checker of rules and metrics."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def promtool(*arguments: str | Path, stdin: bytes | None = None, directory: Path | None = None) -> str:
    """What it says; a failure is one of the test. Where it is missing the test is skipped, and fails with CI set."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool missing: apt-get install --no-install-recommends prometheus")
    done = subprocess.run(
        [program, *map(str, arguments)], input=stdin, cwd=directory, capture_output=True, timeout=120, check=False
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said
