"""What `agent run` makes of the work that it is sent."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from backstay.cli import agent_host
from backstay.control.agents.reporting import Reporting
from backstay.control.agents.work import Work
from backstay.control.runs import run as running
from backstay.errors import InvalidRequest
from backstay.testing import FakeClock


def test_each_job_is_compressed_as_its_own_policy_file_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context: Any = SimpleNamespace(clock=FakeClock(), environ=os.environ, cache=lambda: tmp_path, compressor=None)
    used: list[str] = []
    monkeypatch.setattr(running, "run_this_policy", lambda *_: used.append(context.compressor.method))
    does = agent_host._runs(context, lambda _: None)
    for compression in ({"algorithm": "gzip"}, None, {"enabled": False}):
        document = {
            "name": "web",
            "policy": {"sources": [{"type": "filesystem", "paths": ["/srv"]}]},
            "timezone": "UTC",
            "kind": "full",
            "compression": compression,
        }
        does(Work.parse(document), Reporting(lambda _: {}, context.clock, lambda: False), "", [])
    assert used == ["gzip", "zstd", "none"]


def test_a_file_of_authorities_that_is_none_is_told_before_a_token_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * ((1 << 20) + 1))
    for path, word in (
        (tmp_path / "large", "too large"),
        (tmp_path / "none", "cannot read"),
        (tmp_path, "cannot read"),
    ):
        with pytest.raises(InvalidRequest, match=word):
            agent_host._certificate(path)
