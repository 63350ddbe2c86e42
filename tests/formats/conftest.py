"""What the tests of formats share."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """As everywhere, but trees too deep for Python's own clean-up are removed as well."""
    yield tmp_path
    subprocess.run(["rm", "-rf", "--", tmp_path], check=True)
