"""Where no thread is to be had, nothing is loaded ahead, and all that needs none works as ever."""

from __future__ import annotations

import sys
import threading

import pytest

from backstay.core.loading import loading
from tests.cli.conftest import Account


def _refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", _refuse)


@pytest.mark.usefixtures("alone")
def test_the_body_runs_and_its_errors_are_its_own() -> None:
    with loading("no_such_module"):
        ran = True
    assert ran
    assert "no_such_module" not in sys.modules
    with pytest.raises(RuntimeError, match="its own") as raised, loading("no_such_module"):
        raise RuntimeError("its own")
    assert raised.value.__context__ is None


def test_a_repository_is_read(saved: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", _refuse)
    saved.run("list")
    saved.run("verify")
    assert saved.run("cat", f"latest:{saved.documents / 'note'}").out == "a note\n"
