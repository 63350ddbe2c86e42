"""JSON that all readers understand in one way."""

from __future__ import annotations

import json
from typing import NoReturn

from backstay.codec.canonical_json import check_members
from backstay.errors import InvalidDocument


def check_json(document: bytes | str, what: str) -> None:
    """Refuse what readers of JSON understand in different ways, first of all two members of one name in an object.

    Nothing of it is kept: as Python's own objects a large document would take several times its size.
    """
    try:
        json.loads(document, object_pairs_hook=check_members, parse_constant=_no_number)
    except RecursionError:
        raise InvalidDocument(f"{what} is not valid", cause="it is nested too deeply") from None
    except ValueError as error:  # also bytes that are no UTF-8, and numbers of thousands of digits
        raise InvalidDocument(f"{what} is not valid", cause=str(error)) from error


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")
