"""Programs whose output is read: they are ended when somebody asks, even while they say nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from backstay.errors import Interrupted
from backstay.sources.program import ProgramReader


def never(text: str) -> None:
    pytest.fail(text)


def test_a_program_that_says_nothing_is_ended_with_all_that_it_has_started(tmp_path: Path) -> None:
    def asked() -> None:
        if (tmp_path / "child").exists():
            raise Interrupted("interrupted", cause="somebody asked")

    script = f"sleep 60 & echo $! > {tmp_path}/begun; mv {tmp_path}/begun {tmp_path}/child; wait"
    reader = ProgramReader(["/bin/sh", "-c", script], os.environ, never, asked)
    with pytest.raises(Interrupted):
        reader.read(100)
    reader.abandon()
    child, until = Path("/proc") / (tmp_path / "child").read_text().strip(), time.monotonic() + 45
    while child.exists() and "\nState:\tZ" not in (child / "status").read_text():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_what_it_says_is_read_whole_while_somebody_may_ask(tmp_path: Path) -> None:
    reader = ProgramReader(["/bin/sh", "-c", "echo one; sleep 0.3; echo two"], os.environ, never, lambda: None)
    assert reader.read(100) == b"one\ntwo\n"
    reader.finish()
