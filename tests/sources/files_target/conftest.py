"""Fixtures of this directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backstay.sources.files_target import FilesTarget
from backstay.sources.target_directory import TargetDirectory


@pytest.fixture
def target(tmp_path: Path) -> FilesTarget:
    return FilesTarget(tmp_path / "out")


@pytest.fixture
def root(target: FilesTarget) -> Iterator[TargetDirectory]:
    directory = target.open_root(create=True)
    yield directory
    directory.close()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"
