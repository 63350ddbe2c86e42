"""Whether a database answers a question as was expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from backstay.core.quantities import plural
from backstay.operations.verify.trial import Cell, Question

Ask: TypeAlias = Callable[[str], Sequence[Sequence[Cell]]]

_TRUE: Final = frozenset({"t", "true"})
_NUMBER: Final = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_SHOWN: Final = 200  # characters of an answer


def answer(question: Question, ask: Ask) -> tuple[bool, str]:
    """Whether it is the right one, and what it was. Raises what `ask` raises."""
    rows = [tuple(_text(cell) for cell in row) for row in ask(question.sql)]
    if question.expect is None:
        first = rows[0][0] if rows and rows[0] else None
        return len(rows) == 1 and first is not None and is_true(first), _shown(rows)
    wanted = [tuple(_text(cell) for cell in row) for row in question.expect]
    if rows == wanted:
        return True, _shown(rows)
    return False, f"{_shown(rows)}, not {_shown(wanted)}"


def _text(cell: Cell) -> str | None:
    if cell is None:
        return None
    if isinstance(cell, bool):
        return "t" if cell else "f"
    return str(cell)


def is_true(text: str) -> bool:
    """Whether a database's answer says yes: as its truth values are written, or as a number that is not 0."""
    return text.lower() in _TRUE or (_NUMBER.fullmatch(text) is not None and float(text) != 0)


def _shown(rows: Sequence[Sequence[str | None]]) -> str:
    if not rows:
        return "no row"
    text = "; ".join(", ".join("null" if cell is None else cell for cell in row) for row in rows)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({plural(len(rows), 'row')})"
