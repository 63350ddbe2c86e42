"""Walk through what a snapshot holds, without going back and forth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import msgspec

from backstay.core.names import printable
from backstay.errors import CorruptedBackup
from backstay.repository.blobs.reader import BlobReader
from backstay.repository.nodes import Content, Node
from backstay.repository.trees.listings import MAX_DEPTH, MEND_HINT, find_node, read_listing


class Chooser(Protocol):
    """What of a snapshot is wanted."""

    def selects(self, path: bytes, is_dir: bool) -> bool: ...

    def may_contain(self, path: bytes) -> bool: ...


class Enter(msgspec.Struct, frozen=True, gc=False):
    """A directory begins; `node` is None for the root. `selected` says whether it was asked for itself."""

    path: bytes
    node: Node | None
    selected: bool


class Item(msgspec.Struct, frozen=True, gc=False):
    """An entry that is no directory."""

    path: bytes
    node: Node


class Leave(msgspec.Struct, frozen=True, gc=False):
    """The directory entered last ends; `node` is the same as at its beginning.

    `passed` are the names in it that were not chosen, if those were asked for. It may hold more if it is not whole.
    """

    path: bytes
    node: Node | None
    passed: frozenset[bytes] = frozenset()
    is_whole: bool = True


Visit: TypeAlias = Enter | Item | Leave
OnDamage: TypeAlias = Callable[[bytes, CorruptedBackup], None]


class Everything:
    """Chooses all."""

    def selects(self, path: bytes, is_dir: bool) -> bool:  # noqa: ARG002
        return True

    def may_contain(self, path: bytes) -> bool:  # noqa: ARG002
        return True


EVERYTHING = Everything()


def walk(
    root: Content,
    reader: BlobReader,
    *,
    path: bytes = b"/",
    node: Node | None = None,
    chooser: Chooser = EVERYTHING,
    tell_passed: bool = False,
    on_damage: OnDamage | None = None,
) -> Iterator[Visit]:
    """Depth first in listing order, below a listing that lies at `path`.

    A directory whose listing cannot be read to its end is passed to `on_damage`, and the walk goes on beside it;
    without that, CorruptedBackup is raised.
    """
    yield Enter(path, node, chooser.selects(path, True))
    stack = [_Open(path, node, read_listing(root, reader))]
    while stack:
        place = stack[-1]
        prefix = place.path if place.path.endswith(b"/") else place.path + b"/"
        try:
            for found in place.nodes:
                below = prefix + found.name
                if found.is_dir:
                    if chooser.may_contain(below):
                        yield Enter(below, found, chooser.selects(below, True))
                        stack.append(_Open(below, found, _listed(found, below, len(stack), reader)))
                        break
                elif chooser.selects(below, False):
                    yield Item(below, found)
                    continue
                if tell_passed:
                    place.passed.append(found.name)
            else:
                stack.pop()
                yield Leave(place.path, place.node, frozenset(place.passed))
        except CorruptedBackup as error:
            if on_damage is None:
                raise
            on_damage(place.path, error)
            stack.pop()
            yield Leave(place.path, place.node, frozenset(place.passed), is_whole=False)


def _listed(node: Node, path: bytes, depth: int, reader: BlobReader) -> Iterator[Node]:
    """The nodes of a directory. What is wrong with it is raised when they are asked for, as with any listing."""
    try:
        if depth > MAX_DEPTH:
            raise CorruptedBackup("a snapshot nests its directories too deeply", cause=f"more than {MAX_DEPTH}")
        return read_listing(directory_content(node, path), reader)
    except CorruptedBackup as error:
        return _failing(error)


def _failing(error: CorruptedBackup) -> Iterator[Node]:
    raise error
    yield  # a generator, so that it raises when it is asked


@dataclass(slots=True)
class _Open:
    """A directory that is being walked through."""

    path: bytes
    node: Node | None
    nodes: Iterator[Node]
    passed: list[bytes] = field(default_factory=list)


def subtree(root: Content, path: bytes, reader: BlobReader) -> tuple[Node | None, Content | None]:
    """(node, listing) at an absolute path: no node for `/`, no listing for what is no directory. Raises NotFound."""
    node = find_node(root, path, reader)
    if node is None:
        return None, root
    return node, directory_content(node, path) if node.is_dir else None


def directory_content(node: Node, path: bytes) -> Content:
    """The listing of a directory. Raises CorruptedBackup when it has none."""
    if node.content is None:
        raise CorruptedBackup(f"the directory {printable(path)} has no listing", hint=MEND_HINT)
    return node.content
