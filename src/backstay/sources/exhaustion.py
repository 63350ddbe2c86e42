"""What this machine has run out of is no problem of one item: a walk that went on would miss most of what follows."""

from __future__ import annotations

import errno
from typing import Final

from backstay.core.names import printable
from backstay.errors import BackupFailed
from backstay.sources.refusals import words_of

_MORE_FILES: Final = "let it open more files, as `ulimit -n 65536` does, and run the same backup again"
_HINTS: Final = {
    errno.EMFILE: _MORE_FILES,
    errno.ENFILE: _MORE_FILES,
    errno.ENOMEM: "close other programs, or leave this out with --exclude if it is always the same, and run it again",
}


def is_exhaustion(error: OSError) -> bool:
    """Whether the machine, and not the item, is why it cannot be read."""
    return error.errno in _HINTS


def refuse_exhaustion(path: bytes, error: OSError) -> None:
    """Raises BackupFailed for an item that cannot be read because the machine has run out of something."""
    hint = _HINTS.get(error.errno or 0)
    if hint is not None:
        raise BackupFailed(f"cannot read {printable(path)}", cause=words_of(error), hint=hint) from error
