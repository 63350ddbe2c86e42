"""Words of the command line that a snapshot keeps: they are UTF-8, and those that find it are not empty."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from backstay.core.names import require_utf8
from backstay.errors import InvalidRequest


def tags_of(words: Sequence[str] | None) -> tuple[str, ...]:
    """The tags, each once. Raises InvalidRequest."""
    return tuple(dict.fromkeys(_filled("tag", word) for word in words or ()))


def host_of(word: str | None) -> str:
    """The host that is named, or else this one. Raises InvalidRequest."""
    return socket.gethostname() if word is None else _filled("host", word)


def _filled(what: str, text: str) -> str:
    if not text.strip():
        raise InvalidRequest(
            f"the {what} is empty",
            cause="no snapshot could be found by it",
            hint=f"leave --{what} out, or give it a word; a variable of the shell may be unset",
        )
    return require_utf8(what, text)
