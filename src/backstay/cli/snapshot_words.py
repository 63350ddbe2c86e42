"""Words of the command line that a snapshot keeps: they are UTF-8, and those that find it are not empty."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from backstay.core.names import require_word


def tags_of(words: Sequence[str] | None) -> tuple[str, ...]:
    """The tags, each once. Raises InvalidRequest."""
    return tuple(dict.fromkeys(require_word("tag", word) for word in words or ()))


def host_of(word: str | None) -> str:
    """The host that is named, or else this one. Raises InvalidRequest."""
    return socket.gethostname() if word is None else require_word("host", word)
