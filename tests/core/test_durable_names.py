"""Directories that are made durably, with those above them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from backstay.core.durable_names import make_directories


def test_all_that_are_made_are_as_private_as_was_asked(tmp_path: Path) -> None:
    make_directories(tmp_path / "a/b/c", 0o700)
    assert [stat.S_IMODE((tmp_path / place).stat().st_mode) for place in ("a", "a/b", "a/b/c")] == [0o700] * 3
    make_directories(tmp_path / "a/b/c", 0o700)


def test_where_names_may_be_made_and_not_read_they_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refused(path: Path, *arguments: int) -> int:
        if path == tmp_path:
            raise PermissionError(13, "Permission denied")
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", refused)
    make_directories(tmp_path / "keys")
    assert (tmp_path / "keys").is_dir()
