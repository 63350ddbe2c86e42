"""Mistakes on the command line are told before a repository is opened; what is loaded meanwhile exists."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

import pytest

from tests.cli.conftest import Account

DATABASE = "postgresql://nobody@127.0.0.1:1/none"
MISTAKES = [
    ["restore", "latest"],
    ["restore", "latest", "--to", "x", "--in-place"],
    ["restore", "latest", "--to", "x", "--conflict", "none"],
    ["restore", "latest", "--to", "x", "--parallel", "few"],
    ["restore", "latest", "--to", "x", "--thaw-days", "400"],
    ["restore", "latest", "--to", "x", "--at", "when"],
    ["restore", "latest", "--to", "x", "--schema", "a"],
    ["restore", "latest", "--to", "x", "--table", "a"],
    ["restore", "latest", "--to", "x", "--no-owner"],
    ["restore", "latest:/a", "--to", DATABASE],
    ["restore", "latest", "--to", DATABASE, "--include", "a"],
    ["restore", "latest", "--to", DATABASE, "--exclude", "a"],
    ["restore", "latest", "--to", DATABASE, "--delete"],
    ["restore", "latest", "--to", DATABASE, "--verify"],
    ["restore", "latest", "--to", DATABASE, "--conflict", "newer"],
    ["verify", "--check", "all"],
    ["verify", "--read-data=200%"],
    ["verify", "--min-bytes", "x"],
    ["verify", "--sql", "SELECT 1"],
    ["backup", ".", "--kind", "none"],
    ["--quorum", "2", "list"],
]


def test_a_mistake_is_told_although_the_password_is_wrong(saved: Account) -> None:
    wrong = {"BACKSTAY_PASSWORD": "wrong"}
    for argv in MISTAKES:
        saved.run(*argv, status=2, env=wrong)
    saved.run("restore", "latest", "--to", "x", status=12, env=wrong)


def test_each_module_that_is_loaded_meanwhile_exists(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[tuple[str, ...]] = []

    @contextmanager
    def noting(*modules: str) -> Iterator[None]:
        named.append(modules)
        yield

    monkeypatch.setattr("backstay.cli.context.loading", noting)
    account.run("backup", account.documents)
    account.run("backup", account.documents)
    account.run("verify")
    account.run("restore", "latest", "--to", account.root / "target")
    assert len(named) >= 3
    assert [len(modules) > 1 for modules in named[-3:]] == [True] * 3
    assert [module for modules in named for module in modules if find_spec(module) is None] == []
