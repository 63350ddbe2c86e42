"""The directories of the user, from an environment that is passed in."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.control.opening.cache import usable_cache
from backstay.core.environment import cache_directory, expanded, expanded_if_known, own_places
from backstay.errors import InvalidRequest
from backstay.storage.cloud_credentials import AwsProfile


def test_the_home_of_nobody_is_refused() -> None:
    assert expanded(Path("/a/~b")) == Path("/a/~b")
    with pytest.raises(InvalidRequest, match="cannot resolve ~nosuch/x"):
        expanded(Path("~nosuch/x"))
    with pytest.raises(InvalidRequest):
        cache_directory({"BACKSTAY_CACHE_DIR": "~nosuch/x"})


def test_a_cache_in_the_home_of_nobody_is_left_out_and_told() -> None:
    told: list[str] = []
    assert usable_cache({"BACKSTAY_CACHE_DIR": "~nosuch/x"}, told.append) is None
    assert "cannot resolve ~nosuch/x" in told[0]


def test_whoever_is_not_known_has_no_files_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: object) -> None:
        raise KeyError

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert expanded_if_known("~/.netrc") == Path("~/.netrc")
    assert AwsProfile({}).name == "default"
    assert own_places({"BACKSTAY_PASSWORD_FILE": "/run/password"}) == (Path("/run/password"),)
