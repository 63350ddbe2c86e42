"""A test that is left out where it counts is a failure, unless the machine truly cannot run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_left_out():
    pytest.skip("no time")

@pytest.mark.skipif(True, reason="too slow")
def test_marked():
    pass

def test_incapable():
    pytest.skip("cannot mount here")

@pytest.mark.xfail(reason="known")
def test_known():
    assert False
"""


@pytest.mark.parametrize(
    ("ci", "told"), [("1", "1 failed, 1 skipped, 1 xfailed, 1 error"), ("", "3 skipped, 1 xfailed")]
)
def test_skips(tmp_path: Path, ci: str, told: str) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
    ]
    run = subprocess.run(
        [*command, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "CI": ci, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
    )
    assert told in run.stdout, run.stdout
    assert run.returncode == (1 if ci else 0)
