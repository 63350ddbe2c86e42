"""Modules that are loaded meanwhile are there afterwards, and what is wrong with one is told to whoever needs it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backstay.core.loading import loading


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_they_are_loaded_on_another_thread_and_waited_for(modules: Path) -> None:
    (modules / "loaded_meanwhile.py").write_text("import threading\nwhere = threading.current_thread()\n")
    with loading("loaded_meanwhile"):
        pass
    assert sys.modules["loaded_meanwhile"].where is not threading.current_thread()
    assert not sys.modules["loaded_meanwhile"].where.is_alive()


def test_one_that_cannot_be_loaded_keeps_none_of_the_others_back(modules: Path) -> None:
    (modules / "broken_module.py").write_text("raise RuntimeError('broken')\n")
    (modules / "whole_module.py").write_text("")
    with loading("broken_module", "no_such_module", "whole_module"):
        pass
    assert "whole_module" in sys.modules
    with pytest.raises(RuntimeError, match="broken"):
        import broken_module  # type: ignore[import-not-found]  # noqa: F401


def test_an_error_of_the_body_is_raised_when_the_thread_has_ended(modules: Path) -> None:
    (modules / "slow_module.py").write_text("import time\ntime.sleep(0.05)\ndone = True\n")
    with pytest.raises(KeyError), loading("slow_module"):
        raise KeyError
    assert sys.modules["slow_module"].done
