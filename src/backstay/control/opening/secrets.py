"""Where a password comes from when nobody can be asked: files, variables, a command, a key ring."""

from __future__ import annotations

import importlib
import importlib.util
import shlex
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backstay.core.environment import expanded, variable
from backstay.errors import InvalidRequest

if TYPE_CHECKING:
    from backstay.trust.secrets import Secret

MAX_BYTES: Final = 64 << 10
WAYS: Final = "set BACKSTAY_PASSWORD, BACKSTAY_PASSWORD_FILE or BACKSTAY_PASSWORD_COMMAND, or give --password-file FILE"


def given_secret(environ: Mapping[str, str], password_file: Path | None) -> Secret | None:
    """What was named on purpose: --password-file, else one of the BACKSTAY_PASSWORD variables."""
    if password_file is not None:
        return secret_of(read_secret_text(password_file))
    if (text := variable(environ, "BACKSTAY_PASSWORD")) is not None:
        return secret_of(text)
    if (name := variable(environ, "BACKSTAY_PASSWORD_FILE")) is not None:
        return secret_of(read_secret_text(Path(name)))
    if (command := variable(environ, "BACKSTAY_PASSWORD_COMMAND")) is not None:
        return secret_of(_run(command, environ))
    return None


def find_secret(
    *,
    given: Secret | None,
    key_file: Path | None,
    address: str,
    otherwise: Callable[[], Secret],
) -> Secret:
    """The secret that opens a repository: the given one, else whatever is found, else what `otherwise` says."""
    if given is not None:
        return given
    if key_file is not None and key_file.exists():
        return read_key_file(key_file)
    if (kept := _from_keyring(address)) is not None:
        return secret_of(kept)
    return otherwise()


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

    return Secret.parse_keyfile(read_secret_text(path))


def read_secret_file(path: Path) -> Secret:
    """The secret that stands in a file, of whatever kind. Raises InvalidRequest."""
    return secret_of(read_secret_text(path))


def read_secret_text(path: Path) -> str:
    """The text of a small file without its line end. Raises InvalidRequest."""
    title = f"cannot read the password file {path}"
    try:
        with expanded(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InvalidRequest(title, cause=error.strerror or str(error), hint="check the path") from error
    if len(data) > MAX_BYTES:
        raise InvalidRequest(title, cause="it is larger than 64 KiB", hint="check the path")
    text = data.decode("utf-8-sig", "surrogateescape").rstrip("\r\n")  # some editors begin a file with a mark
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
