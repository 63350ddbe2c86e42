"""Where the password comes from: files, variables, a command, a key ring, the terminal; never the command line."""

from __future__ import annotations

import getpass
import importlib
import importlib.util
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backstay.cli.environment import variable
from backstay.errors import InvalidRequest, WrongKey

if TYPE_CHECKING:
    from backstay.trust.secrets import Secret

MAX_BYTES = 64 << 10
_HINT = "set BACKSTAY_PASSWORD, BACKSTAY_PASSWORD_FILE or BACKSTAY_PASSWORD_COMMAND, or give --password-file FILE"


def given_secret(environ: Mapping[str, str], password_file: Path | None) -> Secret | None:
    """What was named on purpose: --password-file, else one of the BACKSTAY_PASSWORD variables."""
    if password_file is not None:
        return secret_of(_read(password_file))
    if (text := variable(environ, "BACKSTAY_PASSWORD")) is not None:
        return secret_of(text)
    if (name := variable(environ, "BACKSTAY_PASSWORD_FILE")) is not None:
        return secret_of(_read(Path(name)))
    if (command := variable(environ, "BACKSTAY_PASSWORD_COMMAND")) is not None:
        return secret_of(_run(command, environ))
    return None


def find_secret(
    *,
    given: Secret | None,
    key_file: Path | None,
    address: str,
    ready: Callable[[], None],
) -> Secret:
    """The secret that opens a repository: the given one, else whatever is found.

    `ready` is called before anybody is asked, and may raise.

    Raises WrongKey when nobody can be asked.
    """
    if given is not None:
        return given
    if key_file is not None and key_file.exists():
        return read_key_file(key_file)
    if (kept := _from_keyring(address)) is not None:
        return secret_of(kept)
    ready()
    return secret_of(ask(f"password of {address}: "))


def new_secret(environ: Mapping[str, str], *, password_file: Path | None) -> Secret:
    """A second password for `key add`: a file, BACKSTAY_NEW_PASSWORD, or typed twice."""
    if password_file is not None:
        return secret_of(_read(password_file))
    if (text := variable(environ, "BACKSTAY_NEW_PASSWORD")) is not None:
        return secret_of(text)
    return secret_of(ask_twice("new password: ", hint="give --new-password-file FILE or set BACKSTAY_NEW_PASSWORD"))


def other_secret(environ: Mapping[str, str], *, password_file: Path | None, same: Path | None, address: str) -> Secret:
    """The secret of a second repository: a file, BACKSTAY_TO_PASSWORD, what opens the first one, or typed."""
    if password_file is not None:
        return secret_of(_read(password_file))
    if (text := variable(environ, "BACKSTAY_TO_PASSWORD")) is not None:
        return secret_of(text)
    if (given := given_secret(environ, same)) is not None:
        return given
    hint = "give --to-password-file FILE or set BACKSTAY_TO_PASSWORD"
    return secret_of(ask(f"password of {address}: ", hint=hint))


def secret_of(text: str) -> Secret:
    """The secret that a text is: a key file's line, a recovery key, else a passphrase."""
    from backstay.trust.secrets import KEY_FILE_PREFIX, Secret, looks_like_recovery

    if text.lstrip().startswith(KEY_FILE_PREFIX):
        return Secret.parse_keyfile(text)
    if looks_like_recovery(text):
        return Secret.parse_recovery(text)
    return Secret.passphrase(text)


def read_key_file(path: Path) -> Secret:
    """The secret of a key file."""
    from backstay.trust.secrets import Secret

    return Secret.parse_keyfile(_read(path))


def ask(prompt: str, *, hint: str = _HINT) -> str:
    """Ask on the terminal, without showing the answer. Raises WrongKey when there is no terminal."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise WrongKey(
            "no password was given", cause="nothing names one, and there is no terminal to ask on", hint=hint
        )
    try:
        return getpass.getpass(prompt, stream=sys.stderr)
    except EOFError:
        raise WrongKey("no password was given", cause="the terminal gave no answer", hint=hint) from None


def ask_twice(prompt: str, *, hint: str = _HINT) -> str:
    """Ask for a new password, twice."""
    first = ask(prompt, hint=hint)
    if ask("the same again: ", hint=hint) != first:
        raise InvalidRequest("the two passwords differ", cause="one was mistyped", hint="run the command again")
    return first


def _read(path: Path) -> str:
    """The text of a small file without its line end. Raises InvalidRequest."""
    title = f"cannot read the password file {path}"
    try:
        with path.expanduser().open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidRequest(title, cause=error.strerror or str(error), hint="check the path") from error
    if len(data) > MAX_BYTES:
        raise InvalidRequest(title, cause="it is larger than 64 KiB", hint="check the path")
    text = data.decode("utf-8", "surrogateescape").rstrip("\r\n")
    if not text:
        raise InvalidRequest(title, cause="it is empty", hint="write the password into its first line")
    return text


def _run(command: str, environ: Mapping[str, str]) -> str:
    """What a command prints, without its line end. Raises InvalidRequest; never tells what it printed."""
    title = "BACKSTAY_PASSWORD_COMMAND gave no password"
    try:
        words = shlex.split(command)
        done = subprocess.run(words, stdout=subprocess.PIPE, env=dict(environ), check=False)
    except (OSError, ValueError, IndexError) as error:
        raise InvalidRequest(title, cause=str(error), hint="try the command by itself") from error
    if done.returncode != 0:
        raise InvalidRequest(title, cause=f"it ended with status {done.returncode}", hint="try the command by itself")
    text = done.stdout.decode("utf-8", "surrogateescape").rstrip("\r\n")
    if not text:
        raise InvalidRequest(title, cause="it printed nothing", hint="try the command by itself")
    return text


def _from_keyring(address: str) -> str | None:
    """The password that the desktop's key ring holds for this address, if the extra is installed."""
    if importlib.util.find_spec("keyring") is None:
        return None
    keyring: Any = importlib.import_module("keyring")
    try:
        found: str | None = keyring.get_password("backstay", address)
    except keyring.errors.KeyringError:
        return None
    return found
