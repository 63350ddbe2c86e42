"""Pages of lists that are short enough to be in memory whole, such as policies and users."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable
from typing import TypeVar

from backstay.api.models.base import Paged
from backstay.errors import InvalidRequest

ItemT = TypeVar("ItemT")


def part_of(items: Iterable[ItemT], key: Callable[[ItemT], str], asked: Paged) -> tuple[list[ItemT], str | None]:
    """The asked part of a list, sorted by a key that is different for each, and the cursor of what follows.

    Raises InvalidRequest.
    """
    after = None if asked.cursor is None else _opened(asked.cursor)
    found = sorted((item for item in items if after is None or key(item) > after), key=key)
    shown = found[: asked.limit]
    return shown, _sealed(key(shown[-1])) if len(found) > len(shown) else None


def _sealed(key: str) -> str:
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def _opened(cursor: str) -> str:
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error) as error:
        raise InvalidRequest(
            "cursor cannot be so",
            cause="it is not one that this list gave",
            hint="take `next` of the page before as it is, or begin without a cursor",
        ) from error
