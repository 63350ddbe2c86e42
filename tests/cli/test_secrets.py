"""Passwords come from everywhere but the command line, and go nowhere."""

from __future__ import annotations

import os
import pty
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from backstay.cli import secrets
from backstay.errors import InvalidRequest, WrongKey
from backstay.trust.secrets import Secret
from tests.cli.conftest import Account

PASSWORD = "a very secret passphrase"


@pytest.fixture
def locked(account: Account) -> Account:
    """An account whose repository opens with a password."""
    account.environ["BACKSTAY_REPO"] = str(account.root / "repo")
    account.run("init", env={"BACKSTAY_PASSWORD": PASSWORD})
    return account


def test_every_source(locked: Account) -> None:
    file = locked.root / "password"
    file.write_text(PASSWORD + "\n")
    for env in (
        {"BACKSTAY_PASSWORD": PASSWORD},
        {"BACKSTAY_PASSWORD_FILE": str(file)},
        {"BACKSTAY_PASSWORD_COMMAND": f"cat {file}"},
        {"BACKSTAY_PASSWORD": "", "BACKSTAY_PASSWORD_FILE": str(file)},
    ):
        locked.run("list", env=env)
    locked.run("list", "--password-file", file, env={"BACKSTAY_PASSWORD": "overridden"})


@pytest.mark.parametrize(
    "env",
    [
        {"BACKSTAY_PASSWORD_FILE": "/no/such/file"},
        {"BACKSTAY_PASSWORD_FILE": "/dev/null"},
        {"BACKSTAY_PASSWORD_FILE": "/dev/zero"},
        {"BACKSTAY_PASSWORD_COMMAND": "false"},
        {"BACKSTAY_PASSWORD_COMMAND": "true"},
        {"BACKSTAY_PASSWORD_COMMAND": "/no/such/program"},
        {"BACKSTAY_PASSWORD_COMMAND": "unbalanced 'quote"},
    ],
)
def test_sources_that_give_nothing(env: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        secrets.given_secret(env, None)


def test_what_a_text_is() -> None:
    key, recovery = Secret.new_keyfile(), Secret.new_recovery()
    assert secrets.secret_of(key.printed()) == key
    assert secrets.secret_of(recovery.printed()) == recovery
    assert secrets.secret_of("just words") == Secret.passphrase("just words")


def test_a_password_is_never_shown(locked: Account) -> None:
    env = {"BACKSTAY_PASSWORD": PASSWORD}
    wrong = {"BACKSTAY_PASSWORD": PASSWORD + "!"}
    for argv in (("list",), ("-v", "list"), ("--json", "list"), ("-v", "stats"), ("-v", "key", "list")):
        for done in (locked.run(*argv, env=env), locked.run(*argv, env=wrong, status=12)):
            assert PASSWORD not in done.out + done.err
    assert PASSWORD not in repr(Secret.passphrase(PASSWORD))


def test_there_is_no_option_for_a_password(locked: Account) -> None:
    for command in ("backup", "init", "list"):
        assert "--password " not in locked.run(command, "--help").out
    locked.run("list", "--password", PASSWORD, status=2)


def test_nobody_is_asked_without_a_terminal() -> None:
    with pytest.raises(WrongKey):
        secrets.ask("password: ")


def test_a_missing_repository_is_told_before_anybody_is_asked(account: Account) -> None:
    account.run("-r", account.root / "nothing", "list", status=10)


def forget_key_ring() -> dict[str, ModuleType]:
    """Let the package be imported anew; the modules that were."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "keyring"}


@contextmanager
def key_ring(place: Path, known: dict[tuple[str, str], str]) -> Iterator[None]:
    """Within, this is the package `keyring`, whichever is installed or was imported before."""
    package = place / "keyring"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        f"from . import errors\nknown = {known!r}\ndef get_password(*words):\n    return known.get(words)\n"
    )
    (package / "errors.py").write_text("class KeyringError(Exception): pass\n")
    before = forget_key_ring()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(place))
            yield
    finally:
        forget_key_ring()
        sys.modules.update(before)


def test_the_key_ring(locked: Account, tmp_path: Path) -> None:
    with key_ring(tmp_path / "other", {}):
        locked.run("list", status=12)
        with key_ring(tmp_path / "one", {("backstay", str(locked.root / "repo")): PASSWORD}):
            locked.run("list")
        locked.run("list", status=12)


def converse(account: Account, argv: tuple[str, ...], answers: list[bytes]) -> tuple[int, bytes]:
    """Run the program on a terminal and type answers at its prompts; (status, all that it showed)."""
    terminal, inner = pty.openpty()
    run = account.program(*argv, stdin=inner, stdout=inner, stderr=inner)
    os.close(inner)
    shown = b""
    while select.select([terminal], [], [], 30)[0]:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # how Linux says that nobody has the other end open any more
            break
        shown += part
        if answers and shown.endswith(b": "):
            os.write(terminal, answers.pop(0) + b"\n")
    os.close(terminal)
    return run.wait(30), shown


def test_prompts(account: Account) -> None:
    account.environ["BACKSTAY_REPO"] = str(account.root / "asked")
    status, shown = converse(account, ("init",), [PASSWORD.encode(), PASSWORD.encode()])
    assert status == 0, shown
    assert PASSWORD.encode() not in shown
    status, shown = converse(account, ("list",), [PASSWORD.encode()])
    assert status == 0, shown
    assert b"no snapshot yet" in shown
    status, shown = converse(account, ("list",), [b"wrong"])
    assert status == 12
    account.environ["BACKSTAY_REPO"] = str(account.root / "mistyped")
    status, shown = converse(account, ("init",), [b"one", b"other"])
    assert status == 2
    assert b"differ" in shown


def test_a_join_token_is_asked_for_and_ends_with_its_line(account: Account) -> None:
    words = ("agent", "join", "https://127.0.0.1:1", "--dir", str(account.root / "agent"))
    status, shown = converse(account, words, [b"bkj_typed"])
    assert status == 15, shown  # nobody is there
    assert b"join token: " in shown
    assert b"bkj_typed" not in shown
