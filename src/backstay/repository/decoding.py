"""Msgpack that anybody may have written: it decodes, or it is damage."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from backstay.errors import CorruptedBackup

_T = TypeVar("_T")


def decoded(decoder: msgspec.msgpack.Decoder[_T], body: bytes, message: str) -> _T:
    """What a body holds. Raises CorruptedBackup with this message."""
    try:
        return decoder.decode(body)
    # The others: text that is no UTF-8, and lists in lists without end.
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CorruptedBackup(message, cause=str(error)) from error
