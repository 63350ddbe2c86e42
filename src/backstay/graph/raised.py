"""What an exception of somebody's own code says."""

from __future__ import annotations


def said(error: BaseException) -> str:
    """Its message, also where making that raises."""
    try:
        return str(error)
    except Exception as other:  # noqa: BLE001 - whatever `__str__` raises
        return f"its message could not be made: {type(other).__name__}"
