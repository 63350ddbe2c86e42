"""What of a policy's files is configuration: small, changed by hand, and worth a backup as soon as it was."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

from backstay.control.policies.origins import AnyOrigin, FilesystemOrigin

_DIRECTORIES: Final = frozenset({"etc", ".config", "config", "conf", "configs", "configuration"})
_SUFFIXES: Final = frozenset(
    {".cfg", ".cnf", ".conf", ".config", ".env", ".ini", ".json", ".properties", ".toml", ".xml", ".yaml", ".yml"}
)


def configuration_paths(origin: AnyOrigin) -> tuple[str, ...]:
    """The paths of a source that hold configuration.

    All paths of a source of files whose name says so, such as `config`; of others those that lie in a directory such as
    `/etc` or `config`, and files such as `app.yaml`.
    """
    if not isinstance(origin, FilesystemOrigin):
        return ()
    named = origin.name is not None and "conf" in origin.name.lower()
    return tuple(path for path in origin.paths if named or _is_configuration(path))


def _is_configuration(path: str) -> bool:
    parts = PurePosixPath(path)
    return not _DIRECTORIES.isdisjoint(parts.parts) or parts.suffix in _SUFFIXES
