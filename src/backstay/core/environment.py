"""The directories and variables of the user, from an environment that is passed in."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from backstay.errors import InvalidRequest


def variable(environ: Mapping[str, str], name: str) -> str | None:
    """A variable; an empty one counts as not set."""
    return environ.get(name) or None


def repository_address(environ: Mapping[str, str]) -> str | None:
    """BACKSTAY_REPO. Raises InvalidRequest for an empty one: whoever meant a place does not mean the default one."""
    if environ.get("BACKSTAY_REPO") == "":
        raise InvalidRequest(
            "the address of the repository is empty",
            cause="BACKSTAY_REPO is set, and has no characters",
            hint="set it to an address, name one with -r, or unset it for the default repository",
        )
    return environ.get("BACKSTAY_REPO")


def home(environ: Mapping[str, str]) -> Path:
    """The user's home directory. Raises InvalidRequest when none is known."""
    if (named := variable(environ, "HOME")) is None:
        try:
            return Path(pwd.getpwuid(os.getuid()).pw_dir)
        except KeyError:
            raise _homeless(f"HOME is not set, and the system knows no user {os.getuid()}") from None
    if not Path(named).is_absolute():
        raise _homeless(f"HOME is {named!r}, which is no whole path")
    return Path(named)


def expanded(path: Path) -> Path:
    """The path with what `~` or `~name` means at its beginning. Raises InvalidRequest for a user that is not known."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise InvalidRequest(f"cannot resolve {path}", cause=str(error), hint="write the whole path") from error


def expanded_if_known(path: str | Path) -> Path:
    """The same, and as it is for a user that is not known: of a file that need not be there."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _homeless(cause: str) -> InvalidRequest:
    return InvalidRequest(
        "there is no home directory",
        cause=cause,
        hint="set HOME, or BACKSTAY_REPO for the repository and BACKSTAY_CACHE_DIR for the cache",
    )


def user() -> str:
    """Who runs the program: a name, or the number of one who has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def data_directory(environ: Mapping[str, str]) -> Path:
    """Where the default repository lies."""
    return _base(environ, "XDG_DATA_HOME", ".local/share") / "backstay"


def config_directory(environ: Mapping[str, str]) -> Path:
    """Where the default repository's key file lies."""
    return _base(environ, "XDG_CONFIG_HOME", ".config") / "backstay"


def cache_directory(environ: Mapping[str, str]) -> Path:
    """Where disposable data may lie. Raises InvalidRequest when no home directory is known."""
    if (named := variable(environ, "BACKSTAY_CACHE_DIR")) is not None:
        return expanded(Path(named))
    return own_cache_directory(environ)


def own_cache_directory(environ: Mapping[str, str]) -> Path:
    """The one that holds nothing else: one that is named may. Raises InvalidRequest when no home directory is known."""
    return _base(environ, "XDG_CACHE_HOME", ".cache") / "backstay"


def own_places(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """What no restore may take away: key files and settings, the cache, and the password file that is named.

    A cache directory that is named may be one for other things too.
    """
    own: list[Path] = []
    with suppress(InvalidRequest):  # who has no home has neither there
        own += config_directory(environ), own_cache_directory(environ)
    if (named := variable(environ, "BACKSTAY_PASSWORD_FILE")) is not None:
        own.append(Path(named))
    return tuple(own)


def runtime_directory(environ: Mapping[str, str]) -> Path:
    """Where sockets lie: the directory that systemd gives a service, or the user's own, or for root the system's."""
    if (given := variable(environ, "RUNTIME_DIRECTORY")) is not None:
        return Path(given.partition(":")[0])
    named = variable(environ, "XDG_RUNTIME_DIR")
    return (Path(named) if named is not None and os.geteuid() != 0 else Path("/run")) / "backstay"


def _base(environ: Mapping[str, str], name: str, otherwise: str) -> Path:
    """A directory by the XDG base directory specification: relative values are to be ignored."""
    named = variable(environ, name)
    return Path(named) if named is not None and Path(named).is_absolute() else home(environ) / otherwise
