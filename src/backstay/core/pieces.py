"""Whether what can be iterated over may be a series of pieces of bytes."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet


def why_no_pieces(value: object) -> str:
    """Why the items of an iterable are no pieces of one value, whatever they are; empty if they may be."""
    if isinstance(value, AbstractSet):
        return "the items of a set have no order"
    if isinstance(value, Mapping):
        return "iterating over a mapping gives its keys alone"
    if hasattr(value, "__array__") or _has_buffer(value):
        return "the elements of an array are not its bytes, and say nothing of its type and shape"
    return ""


def _has_buffer(value: object) -> bool:
    try:
        memoryview(value).release()  # type: ignore[arg-type]
    except TypeError:
        return False
    except (BufferError, ValueError):  # it has one that cannot be seen as it is
        return True
    return True
