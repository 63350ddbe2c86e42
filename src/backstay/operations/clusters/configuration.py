"""The configuration of a restored server: its own, or one that lay outside of its data directory, as Debian has it.

Its data directory is overruled at the end of postgresql.conf: that named the one of the server that was backed up, and
a copy must never run there. Who may connect is said by the files that the server itself used: where one is missing, it
does not start.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backstay.errors import InvalidRequest, NotFound
from backstay.sources.postgres.owned_files import OwnedFiles
from backstay.sources.postgres.recovery import place_settings

MAIN: Final = "postgresql.conf"
_OTHERS: Final = ("pg_hba.conf", "pg_ident.conf")
_MORE: Final = "conf.d"  # what Debian's postgresql.conf includes
# Or files that may name them.
_NAMES_PLACES: Final = re.compile(
    rb"^\s*(data_directory|external_pid_file|include|include_dir|include_if_exists)\b",
    re.MULTILINE | re.IGNORECASE,
)


def overrule_places(owned: OwnedFiles) -> bool:
    """Let a postgresql.conf that was in the backup name no place to which only its own server writes. Raises OSError.

    False if it needs no change. It is replaced, not written to: in an older data directory it may have other names.
    """
    main = owned.data / MAIN
    if not main.is_file() or not _NAMES_PLACES.search(data := main.read_bytes()):
        return False
    # No hba_file: what lies here may be what initdb left, and let everybody in.
    lines = place_settings(owned.data, present=()).encode()
    if data.endswith(lines):  # it was restored to this very place before
        return False
    owned.publish(main, data + lines)
    return True


@dataclass(frozen=True, slots=True)
class Configuration:
    """The bytes of configuration files by their paths below a data directory."""

    files: dict[str, bytes]

    @classmethod
    def read(cls, source: Path) -> Configuration:
        """Those in a directory such as /etc/postgresql/18/main. Raises NotFound, InvalidRequest."""
        names = [MAIN, *(name for name in _OTHERS if (source / name).exists())]
        names += sorted(f"{_MORE}/{path.name}" for path in (source / _MORE).glob("*.conf"))
        try:
            return cls({name: (source / name).read_bytes() for name in names})
        except FileNotFoundError as error:
            raise NotFound(
                f"there is no {MAIN} in {source}",
                cause=f"{error.filename} does not exist",
                hint="name the directory that holds it, such as /etc/postgresql/18/main",
            ) from error
        except OSError as error:
            raise InvalidRequest(
                f"the configuration in {source} cannot be read", cause=f"{error.filename}: {error.strerror}"
            ) from error

    def write(self, owned: OwnedFiles) -> None:
        """Put them into a data directory that has none of its own. Raises OSError."""
        for name, data in self.files.items():
            place = owned.data / name
            if not place.parent.exists():
                owned.make(place.parent)
            places = place_settings(owned.data, self.files) if name == MAIN else ""
            owned.write(place, data + places.encode())
