"""Help: every command has it, it says what the options mean, and it comes at once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from backstay import __version__
from backstay.cli.main import _command
from tests.cli.conftest import SOURCE, Account


def commands(group: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*above, name))
        else:
            yield (*above, name), command


ALL = dict(commands(_command()))


def test_the_commands_of_this_version() -> None:
    expected = [
        "init",
        "backup",
        "restore",
        "list",
        "info",
        "ls",
        "find",
        "diff",
        "cat",
        "stats",
        "verify",
        "prune",
        "delete",
        "gc",
        "retain",
        "check-storage",
        "copy",
        "export",
        "import",
        "benchmark",
        "completion",
    ]
    assert {words[0] for words in ALL} == {*expected, "repair", "key", "tier", "hold", "pg", "mysql"}
    assert [words[1] for words in ALL if words[0] == "key"] == ["list", "add", "remove", "rotate", "recovery"]
    assert [words[1] for words in ALL if words[0] == "repair"] == ["index", "snapshots", "packs"]


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help(account: Account, words: tuple[str, ...]) -> None:
    shown = account.run(*words, "--help").out
    assert "Usage: backstay" in shown
    text = re.sub(r"[\s│]+", " ", shown)
    for param in ALL[words].params:
        assert all(name in text for name in param.opts if name.startswith("--")), param
        assert param.help, f"{words}: {param.name} has no help"
    assert "<bool>" not in shown.replace("--help     -h      <bool>", "")[: shown.find("--help")]


def test_version(account: Account) -> None:
    assert account.run("--version").out == f"backstay {__version__}\n"


@pytest.mark.parametrize("argv", [("--json", "--version"), ("--version", "--json")])
def test_version_for_programs(account: Account, argv: tuple[str, ...]) -> None:
    assert json.loads(account.run(*argv).out) == {"version": __version__}


def test_help_is_text_also_for_programs(account: Account) -> None:
    assert account.run("--json", "--help").out == account.run("--help").out
    assert "help stays text" in account.run("--help").out


def test_help_is_quick() -> None:
    code = "import sys, backstay.cli.main; print(*(m for m in sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"cryptography", "zstandard", "blake3", "lmdb", "msgspec", "pyfastcdc", "backstay.operations.backup"}
    assert heavy.isdisjoint(loaded)


def test_help_takes_less_than_a_second(account: Account) -> None:
    start = time.perf_counter()
    run = account.program("--help")
    run.communicate(timeout=10)
    assert run.returncode == 0
    assert time.perf_counter() - start < 1.0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(account: Account, shell: str) -> None:
    assert "_BACKSTAY_COMPLETE" in account.run("completion", shell).out


def test_completion_completes(account: Account) -> None:
    env = {"_BACKSTAY_COMPLETE": "complete_bash", "COMP_WORDS": "backstay re", "COMP_CWORD": "1"}
    out, _ = account.program(env=env).communicate(timeout=10)
    assert out.split() == [b"restore", b"retain", b"repair"]
