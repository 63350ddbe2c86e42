"""Help: every command has it, it says what the options mean, and it comes at once."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from backstay import __version__
from backstay.cli.main import command_tree
from tests.cli.conftest import SOURCE, Account


def commands(group: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*above, name))
        else:
            yield (*above, name), command


ALL = dict(commands(command_tree()))


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
        "run",
        "benchmark",
        "doctor",
        "completion",
        "recover",
        "serve",
        "worker",
    ]
    groups = {
        "agent",
        "audit",
        "cas",
        "evidence",
        "graph",
        "hold",
        "key",
        "mysql",
        "pg",
        "policy",
        "repair",
        "tier",
        "token",
        "user",
    }
    assert {words[0] for words in ALL} == {*expected, *groups}
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


def test_help_loads_little() -> None:
    code = "import sys; from backstay.cli.main import run; run(['--help'], {}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=True
    )
    assert "Usage" in done.stdout
    heavy = {"cryptography", "zstandard", "blake3", "lmdb", "msgspec", "pydantic", "pyfastcdc", "psycopg"}
    heavy |= {"cronsim", "ruamel"}
    assert heavy.isdisjoint(done.stderr.split())
    assert not _above(done.stderr)
    assert not [module for module in done.stderr.split() if module.startswith("backstay.operations")]


def test_a_backup_without_a_policy_file_loads_none_of_its_libraries(account: Account) -> None:
    code = "import os, sys; from backstay.cli.main import run; run(sys.argv[1:], dict(os.environ)); print(*sys.modules)"
    words = [sys.executable, "-c", code, "-q", "backup", str(account.documents)]
    environ = {**account.environ, "PYTHONPATH": str(SOURCE), "BACKSTAY_PASSWORD": "x"}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=True)
    loaded = {module.partition(".")[0] for module in done.stdout.split()}
    assert "lmdb" in loaded  # it did back up
    assert {"ruamel", "cronsim"}.isdisjoint(loaded)  # typer takes options apart with pydantic
    assert not _above(done.stdout)


def _above(loaded: str) -> list[str]:
    """The modules of control that are loaded, but for those that open a repository."""
    opening = ("backstay.control", "backstay.control.opening")
    found = [module for module in loaded.split() if module.startswith("backstay.control")]
    return [module for module in found if module not in opening and not module.startswith("backstay.control.opening.")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(account: Account, shell: str) -> None:
    assert "_BACKSTAY_COMPLETE" in account.run("completion", shell).out


def test_completion_completes(account: Account) -> None:
    env = {"_BACKSTAY_COMPLETE": "complete_bash", "COMP_WORDS": "backstay re", "COMP_CWORD": "1"}
    out, _ = account.program(env=env).communicate(timeout=60)
    assert out.split() == [b"restore", b"retain", b"recover", b"repair"]
