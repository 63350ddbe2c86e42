"""Forged contents of files: lists of ids, and patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from backstay.repository.blobs.contents import CHANGE, PATCH, Change, Patch, frame
from backstay.repository.nodes import EMPTY, PATCHED, Content
from tests.formats.forge import HELLO, Damage, Forge, forged, nested

encode = msgspec.msgpack.encode


def _content(name: str, make: Callable[[Forge], Content], *, says: str = "") -> Damage:
    """A file of five bytes with that content."""
    return Damage(f"content: {name}", forged(lambda forge: forge.tree([forge.file(content=make(forge))])), says=says)


def _patched(forge: Forge, body: bytes) -> Content:
    return Content(PATCHED, forge.chunks(frame(PATCH, body)))


def _longer_patch(forge: Forge) -> Content:
    return _patched(forge, encode([len(HELLO), Content(0, forge.chunks(HELLO)), EMPTY, 0]))


def _nested_patch(forge: Forge) -> Content:
    """Behind the elements that everybody knows comes one that nests without end."""
    patch = Patch(len(HELLO), Content(0, forge.chunks(HELLO)), EMPTY)
    return _patched(forge, b"\x94" + encode(patch)[1:] + nested(200_000))


def _nested_change(forge: Forge) -> Content:
    change = Change(0, len(HELLO), 0, 0, forge.keyring.chunk_ids.of(HELLO), b"")
    changes = frame(CHANGE, b"\x97" + encode(change)[1:] + nested(200_000))
    return _patched(forge, encode(Patch(len(HELLO), EMPTY, Content(0, forge.chunks(changes)))))


OF_CONTENTS: Final = [
    _content("an empty chunk", lambda forge: Content(0, forge.chunks(b"", HELLO)), says="empty"),
    _content("a list of empty chunks", lambda forge: Content(1, forge.chunks(b"") * 9), says="empty"),
    _content(
        "a patch of another size",
        lambda forge: _patched(forge, encode(Patch(4, Content(0, forge.chunks(HELLO)), EMPTY))),
        says="length",
    ),
    _content("a patch with an element more", _longer_patch, says="number of fields"),
    _content("a patch that nests without end", _nested_patch, says="deep"),
    _content("a change that nests without end", _nested_change, says="deep"),
]
