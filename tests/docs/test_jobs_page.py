"""The page on jobs says what is so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from backstay.control.jobs.queues import QUEUES
from tests.cli.conftest import Account, account

__all__ = ["account"]  # a fixture

PAGE = (Path(__file__).parents[2] / "docs/jobs.md").read_text()
COMMANDS = re.findall(r"^(backstay (?:serve|worker)[^#\n]*)", PAGE, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_option_of_each_command_exists(account: Account, command: str) -> None:
    words = shlex.split(command)
    told = account.run(words[1], "--help").out
    assert [word for word in words if word.startswith("--") and word not in told] == []


def test_the_table_of_queues_is_whole() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| (\d) (.*) \|$", PAGE, re.MULTILINE)
    assert [name for name, _, _ in rows] == list(QUEUES)
    for name, number, words in rows:
        queue = QUEUES[name]
        assert (int(number), "for the" in words or "for each" in words) == (queue.per_worker, queue.partitions)
