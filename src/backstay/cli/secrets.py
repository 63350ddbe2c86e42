"""Where the password comes from: files, variables, a command, a key ring, the terminal; never the command line."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from backstay.control.opening import secrets as unasked
from backstay.control.opening.secrets import (
    WAYS,
    given_secret,
    read_key_file,
    read_secret_file,
    read_secret_text,
    secret_of,
)
from backstay.core.environment import variable
from backstay.errors import InvalidRequest, WrongKey

if TYPE_CHECKING:
    from backstay.trust.secrets import Secret

__all__ = [
    "ask",
    "ask_twice",
    "find_secret",
    "given_secret",
    "new_secret",
    "new_user_password",
    "other_secret",
    "read_key_file",
    "secret_of",
]


def find_secret(
    *,
    given: Secret | None,
    key_file: Path | None,
    address: str,
    ready: Callable[[], None],
) -> Secret:
    """The secret that opens a repository: the given one, else whatever is found, else what is typed.

    `ready` is called before anybody is asked, and may raise.

    Raises WrongKey when nobody can be asked.
    """

    def typed() -> Secret:
        ready()
        return secret_of(ask(f"password of {address}: "))

    return unasked.find_secret(given=given, key_file=key_file, address=address, otherwise=typed)


def new_secret(environ: Mapping[str, str], *, password_file: Path | None) -> Secret:
    """A second password for `key add`: a file, BACKSTAY_NEW_PASSWORD, or typed twice."""
    if password_file is not None:
        return read_secret_file(password_file)
    if (text := variable(environ, "BACKSTAY_NEW_PASSWORD")) is not None:
        return secret_of(text)
    return secret_of(ask_twice("new password: ", hint="give --new-password-file FILE or set BACKSTAY_NEW_PASSWORD"))


def new_user_password(environ: Mapping[str, str], *, password_file: Path | None, user: str) -> str:
    """A password for a user of the service: a file, BACKSTAY_NEW_PASSWORD, or typed twice."""
    if password_file is not None:
        return read_secret_text(password_file)
    if (text := variable(environ, "BACKSTAY_NEW_PASSWORD")) is not None:
        return text
    return ask_twice(f"new password of {user}: ", hint="give --new-password-file FILE or set BACKSTAY_NEW_PASSWORD")


def other_secret(environ: Mapping[str, str], *, password_file: Path | None, same: Path | None, address: str) -> Secret:
    """The secret of a second repository: a file, BACKSTAY_TO_PASSWORD, what opens the first one, or typed."""
    if password_file is not None:
        return read_secret_file(password_file)
    if (text := variable(environ, "BACKSTAY_TO_PASSWORD")) is not None:
        return secret_of(text)
    if (given := given_secret(environ, same)) is not None:
        return given
    hint = "give --to-password-file FILE or set BACKSTAY_TO_PASSWORD"
    return secret_of(ask(f"password of {address}: ", hint=hint))


def ask(prompt: str, *, hint: str = WAYS) -> str:
    """Ask on the terminal, without showing the answer. Raises WrongKey when there is no terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise WrongKey(
            "no password was given", cause="nothing names one, and there is no terminal to ask on", hint=hint
        )
    try:
        return getpass.getpass(prompt, stream=sys.stderr)
    except EOFError:
        raise WrongKey("no password was given", cause="the terminal gave no answer", hint=hint) from None


def ask_twice(prompt: str, *, hint: str = WAYS) -> str:
    """Ask for a new password, twice."""
    first = ask(prompt, hint=hint)
    if ask("the same again: ", hint=hint) != first:
        raise InvalidRequest("the two passwords differ", cause="one was mistyped", hint="run the command again")
    return first
