"""Whether a database answers a question as was expected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from backstay.core.quantities import plural
from backstay.operations.verify.trial import Cell, Question

Ask: TypeAlias = Callable[[str], Sequence[Sequence[Cell]]]

_TRUE: Final = frozenset({"t", "true", "1"})
_SHOWN: Final = 200  # characters of an answer


def answer(question: Question, ask: Ask) -> tuple[bool, str]:
    """Whether it is the right one, and what it was. Raises what `ask` raises."""
    rows = [tuple(_text(cell) for cell in row) for row in ask(question.sql)]
    if question.expect is None:
        first = rows[0][0] if rows and rows[0] else None
        return len(rows) == 1 and first is not None and _is_true(first), _shown(rows)
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


def _is_true(text: str) -> bool:
    return text.lower() in _TRUE or (text.lstrip("-").isdecimal() and int(text) != 0)


def _shown(rows: Sequence[Sequence[str | None]]) -> str:
    if not rows:
        return "no row"
    text = "; ".join(", ".join("null" if cell is None else cell for cell in row) for row in rows)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({plural(len(rows), 'row')})"
