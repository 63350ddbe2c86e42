"""Forged listings, and nodes in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from backstay.repository.blobs.contents import frame
from backstay.repository.nodes import EMPTY, Content, Node
from backstay.repository.trees.listings import encode_node
from tests.formats.forge import (
    DIR,
    HUGE,
    Change,
    Damage,
    Forge,
    Objects,
    forged,
    nested,
)


def _nodes(make: Callable[[Forge], list[Node]]) -> Change:
    return forged(lambda forge: forge.tree(make(forge)))


def _file(**changes: Any) -> Change:
    return _nodes(lambda forge: [forge.file(**changes)])


def _directory(forge: Forge, name: bytes, content: Content | None = EMPTY) -> Node:
    return forge.file(name, mode=DIR, size=0, content=content, sha256=None)


def _symlink(forge: Forge, name: bytes, target: bytes | None) -> Node:
    return forge.file(name, mode=0o120777, size=0, content=None, sha256=None, target=target)


def _escape(forge: Forge) -> list[Node]:
    """A symlink that leads out, and a directory of the same name with a file in it."""
    inner = Content(0, forge.chunks(encode_node(forge.file(b"escaped"))))
    return [_symlink(forge, b"x", b".."), _directory(forge, b"x", inner)]


def _listing(make: Callable[[bytes], bytes]) -> Change:
    """A root listing made of the encoding of a good one."""
    return forged(lambda forge: forge.stream(make(encode_node(forge.file(b"a")) + encode_node(forge.file(b"b")))))


def _raw_node(change: Callable[[list[Any]], Any]) -> Change:
    def make(forge: Forge) -> Objects:
        node = change(msgspec.msgpack.decode(msgspec.msgpack.encode(forge.file())))
        return forge.stream(frame(0, node if isinstance(node, bytes) else msgspec.msgpack.encode(node)))

    return forged(make)


def _with(at: int, value: Any) -> Callable[[list[Any]], Any]:
    def change(node: list[Any]) -> list[Any]:
        return [*node[:at], value, *node[at + 1 :]]

    return change


def _nest_list(depth: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    return nested


def _bad_text(node: list[Any]) -> bytes:
    marker = "USER-NAME"
    raw = msgspec.msgpack.encode(_with(4, marker)(node))
    return raw.replace(marker.encode(), b"\xff" * len(marker))


def _trees() -> list[Damage]:
    bad_names = (b"..", b".", b"", b"a/b", b"/etc/x", b"a\0b", b"../x", b"n" * 5000)
    return [
        *(Damage(f"listing: the name {name[:9]!r}", _file(name=name), says="impossible name") for name in bad_names),
        Damage("listing: out of order", _nodes(lambda f: [f.file(b"b"), f.file(b"a")]), says="order"),
        Damage("listing: a name twice", _nodes(lambda f: [f.file(b"a"), f.file(b"a")]), says="order"),
        Damage("listing: directories first", _nodes(lambda f: [_directory(f, b"a"), f.file(b"b")]), says="order"),
        Damage(
            "listing: file and directory of one name",
            _nodes(lambda f: [f.file(b"a"), _directory(f, b"a")]),
            says="twice",
        ),
        Damage("listing: a symlink out and a directory of its name", _nodes(_escape), says="twice"),
        Damage("listing: cut", _listing(lambda data: data[:-1]), says="middle"),
        Damage("listing: half a frame head", _listing(lambda data: data + b"\0\0"), says="middle"),
        Damage("listing: foreign frame", _listing(lambda data: frame(7, b"\xc0") + data), says="foreign"),
        Damage("listing: a frame of 4 GiB", _listing(lambda data: b"\0" + HUGE + data), says="absurd"),
        Damage("listing: an empty frame", _listing(lambda data: frame(0, b"") + data)),
        Damage("node: nests without end", _raw_node(lambda _: nested(100_000))),
        Damage(
            "node: `extra` nests without end",
            _raw_node(_with(15, {"x": _nest_list(200)})),
            says="deep",
            engine=False,
        ),
        Damage("node: a list of 2³² items", _raw_node(lambda _: b"\xdd\xff\xff\xff\xff")),
        Damage("node: too short", _raw_node(lambda node: node[:5])),
        Damage("node: no list", _raw_node(lambda _: 7)),
        Damage("node: size below zero", _raw_node(_with(6, -1)), says="impossible"),
        Damage("node: size of 2⁶³", _raw_node(_with(6, 1 << 63)), says="impossible"),
        Damage("node: size of nearly 2⁶³", _raw_node(_with(6, (1 << 63) - 1)), says="length"),
        Damage("node: larger than its data", _file(size=6), says="length"),
        Damage("node: smaller than its data", _file(size=4), says="length"),
        Damage("node: much larger than its data", _file(size=20 << 20), says="length"),
        Damage("node: large without data", _file(size=20 << 20, content=EMPTY), says="length"),
        Damage("node: large without content", _file(size=20 << 20, content=None), says="length"),
        Damage("node: wrong SHA-256", _file(sha256=bytes(32)), says="SHA-256", engine=False),
        Damage("node: SHA-256 of one byte", _raw_node(_with(9, b"x")), says="type"),
        Damage("node: missing chunk", _file(content=Content(0, bytes(32))), says="in no pack"),
        Damage("node: half an id", _file(content=Content(0, bytes(31))), says="cut short"),
        Damage("node: content nested too deeply", _file(content=Content(9, b"")), says="nested"),
        Damage("node: extents beyond its size", _file(size=10, extents=((8, 5),)), says="extents"),
        Damage("node: extents that overlap", _file(size=100, extents=((0, 3), (2, 2))), says="extents"),
        Damage("node: extents in disorder", _file(size=100, extents=((50, 3), (0, 2))), says="extents"),
        Damage("node: an extent of no length", _file(size=100, extents=((0, 5), (9, 0))), says="extents"),
        Damage("node: extents below zero", _file(size=100, extents=((-3, 5),)), says="extents"),
        Damage("node: extents of 8 EiB", _file(size=(1 << 63) - 1, extents=((0, (1 << 63) - 1),)), says="length"),
        Damage("node: extents larger than its data", _file(size=100, extents=((0, 50),)), says="length"),
        Damage("node: extents smaller than its data", _file(size=100, extents=((0, 2),)), says="length"),
        Damage("node: directory without listing", _nodes(lambda f: [_directory(f, b"d", None)]), says="impossible"),
        Damage(
            "node: directory whose listing is missing", _nodes(lambda f: [_directory(f, b"d", Content(0, bytes(32)))])
        ),
        Damage("node: symlink to nowhere at all", _nodes(lambda f: [_symlink(f, b"l", None)]), says="target"),
        Damage("node: symlink with a zero byte", _nodes(lambda f: [_symlink(f, b"l", b"a\0b")]), says="target"),
        Damage("node: owner beyond all numbers", _raw_node(_with(2, 1 << 60)), says="impossible"),
        Damage("node: owner below zero", _raw_node(_with(2, -1)), says="impossible"),
        Damage("node: group beyond all numbers", _raw_node(_with(3, 1 << 32)), says="impossible"),
        Damage("node: link group of one byte", _raw_node(_with(12, b"x")), says="type"),
        Damage("node: mode beyond all bits", _raw_node(_with(1, 1 << 60)), says="impossible"),
        Damage("node: mode below zero", _raw_node(_with(1, -1)), says="impossible"),
        Damage("node: text that is no UTF-8", _raw_node(_bad_text), says="UTF-8"),
    ]


OF_TREES: Final = _trees()
