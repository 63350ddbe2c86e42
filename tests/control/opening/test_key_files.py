"""Key files are durable before anything relies on them: the first one of a repository is the only key to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.control.opening.key_files import finish_key_file, make_directory, unfinished, write_secret_file
from tests.synced import Synced

pytestmark = pytest.mark.crash


def test_a_key_file_is_durable_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = Synced(tmp_path, monkeypatch)
    write_secret_file(tmp_path / "a.key", "secret")
    first, *then = synced.calls
    beside = first.removeprefix("fsync ")
    assert synced.contents[beside] == b"secret\n"
    assert then == [f"link {beside} a.key", f"unlink {beside}", "fsync ."]


def test_a_key_file_has_its_place_durably(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.key"
    write_secret_file(unfinished(path), "secret")
    synced = Synced(tmp_path, monkeypatch)
    finish_key_file(path)
    assert synced.calls == ["link a.key.new a.key", "unlink a.key.new", "fsync ."]


def test_the_directory_of_key_files_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = Synced(tmp_path, monkeypatch)
    make_directory(tmp_path / "config" / "backstay")
    assert synced.calls == ["fsync .", "fsync config"]
    make_directory(tmp_path / "config" / "backstay")
    assert len(synced.calls) == 2
