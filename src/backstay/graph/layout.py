"""Snapshots of graphs as plain files for other programs:

    blobs/<sha256>.json        what a node made, its bytes as they are
    metadata/snapshots.json    the snapshots, each with its whole graph

Blobs come first and snapshots.json last, so that a crash leaves blobs that nothing names, and the snapshots of before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from backstay.core.quantities import format_size
from backstay.errors import InvalidRequest, NotFound, OutputMismatch, OutputMissing
from backstay.graph.documents import MAX_DOCUMENT
from backstay.graph.layout_directory import LayoutDirectory
from backstay.graph.layout_index import LayoutSnapshot, read_index, write_index
from backstay.graph.model import Node
from backstay.graph.values import Values


@dataclass(frozen=True, kw_only=True)
class Carried:
    """How many values and bytes were copied, as they were not there, and which values could not be found."""

    values: int = 0
    bytes: int = 0
    missing: tuple[str, ...] = ()


class Layout:
    """A layout that was read: its snapshots, all of them checked, and its values, each checked when it is taken."""

    def __init__(self, directory: LayoutDirectory, snapshots: tuple[LayoutSnapshot, ...]) -> None:
        self.snapshots = snapshots
        self._directory = directory

    def store_values(self, into: Values, *, complete: bool = True) -> Carried:
        """Store what the snapshots name and is not stored yet, in one batch: all of it counts, or nothing.

        Raises OutputMissing if what a node made is not there, unless it need not be `complete`, and OutputMismatch
        if it has other bytes than its name says or another size than its node says.
        """
        count, size, missing = 0, 0, []
        wanted = _wanted(self.snapshots)
        with into.batch() as batch:
            for key in into.missing(wanted):
                maker = wanted[key]
                found = self._directory.size(key)
                if found is None:
                    missing += _lacking(key, maker, complete=complete)
                    continue
                _check_size(key, found, maker)
                with self._directory.blob(key) as pieces:
                    batch.store(pieces)
                count, size = count + 1, size + found
        return Carried(values=count, bytes=size, missing=tuple(missing))


@contextmanager
def read_layout(path: Path) -> Iterator[Layout]:
    """The layout in a directory. Nothing in it is believed; what is wrong with it is an error that says where.

    Raises NotFound, InvalidDocument or another GraphError.
    """
    with LayoutDirectory.open(path) as directory:
        document = directory.read_index(MAX_DOCUMENT)
        if document is None:
            raise NotFound(f"{path} is no graph layout", cause="it has no metadata/snapshots.json")
        yield Layout(directory, read_index(document))


def write_layout(path: Path, snapshots: Iterable[LayoutSnapshot], values: Values, *, complete: bool = True) -> Carried:
    """Write snapshots and their values into a directory, new or of this layout, beside those that are there.

    A snapshot takes the place of the one that has its id. Values that are there and good are not written again.
    Raises OutputMissing if what a node made is not stored, unless it need not be `complete`; then no snapshot was
    written.
    """
    new = {snapshot.id: snapshot for snapshot in snapshots}
    for snapshot in new.values():
        snapshot.graph.check()
    with LayoutDirectory.create(path) as directory:
        document = directory.read_index(MAX_DOCUMENT)
        before = {} if document is None else {snapshot.id: snapshot for snapshot in read_index(document)}
        carried = _write_values(directory, new.values(), values, complete=complete)
        directory.write_index(_bounded(write_index((before | new).values())))
    return carried


def _write_values(
    directory: LayoutDirectory, snapshots: Iterable[LayoutSnapshot], values: Values, *, complete: bool
) -> Carried:
    count, size, missing = 0, 0, []
    wanted = _wanted(snapshots)
    needed = [key for key in wanted if not directory.has(key)]
    absent = set(values.missing(needed))
    for key in needed:
        if key in absent:
            missing += _lacking(key, wanted[key], complete=complete)
            continue
        size += directory.write_blob(key, values.open(key))
        count += 1
    return Carried(values=count, bytes=size, missing=tuple(missing))


def _bounded(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same pieces, as long as `read_layout` would read them."""
    size = 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_DOCUMENT:
            cause = f"snapshots.json would have more than {format_size(MAX_DOCUMENT)}"
            raise InvalidRequest("there is no room for one more snapshot", cause=cause, hint="use another directory")
        yield piece


def _wanted(snapshots: Iterable[LayoutSnapshot]) -> dict[str, Node | None]:
    """The ids of all values that go along, with the node that made each; none made what comes from outside."""
    wanted: dict[str, Node | None] = {}
    taken: dict[str, None] = {}
    for snapshot in snapshots:
        for node in snapshot.graph:
            taken.update(dict.fromkeys(node.metadata.input_hashes))
            for key in node.values:
                wanted.setdefault(key, node)
    for key in taken:
        wanted.setdefault(key, None)
    return wanted


def _lacking(key: str, maker: Node | None, *, complete: bool) -> list[str]:
    """The id to report. Inputs that no node made need not be there: the program may have had them from elsewhere."""
    if maker is None:
        return []
    if complete:
        raise OutputMissing(f"what node {maker.id} made is not there", cause=f"no value has the id {key}")
    return [key]


def _check_size(key: str, size: int, maker: Node | None) -> None:
    if maker is None or key != maker.hash or maker.metadata.size in (None, size):
        return
    assert maker.metadata.size is not None
    cause = f"it has {format_size(size)}, not {format_size(maker.metadata.size)}"
    raise OutputMismatch(f"what node {maker.id} made is not what was recorded", cause=cause)
