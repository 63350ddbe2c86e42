"""Look into snapshots: list, find, compare, read one file, count."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from msgspec.structs import replace

from backstay.codec.compression import Buffer
from backstay.core.events import EventSink, ignore
from backstay.core.names import printable
from backstay.errors import CorruptedBackup, InvalidRequest
from backstay.operations.snapshots.walk import Chooser, Leave, OnDamage, subtree, walk
from backstay.operations.tiers.cold_packs import THAW_DAYS, ColdPacks, make_readable
from backstay.repository.blobs.contents import read_content
from backstay.repository.format import BlobKind, RecordKind
from backstay.repository.nodes import Content, Node
from backstay.repository.repository import Repository
from backstay.repository.snapshots.store import Manifest
from backstay.repository.trees.listings import MAX_DEPTH, listing_key, read_listing

_KINDS = {stat.S_IFDIR: "a directory", stat.S_IFLNK: "a symlink"}
Change: TypeAlias = Literal["added", "removed", "changed", "metadata", "type"]


@dataclass(frozen=True, slots=True)
class Found:
    """One entry of a snapshot with its absolute path."""

    path: bytes
    node: Node


@dataclass(frozen=True, slots=True)
class Difference:
    """How one path differs between two snapshots; sizes in bytes, None where it does not exist."""

    path: bytes
    change: Change
    old_size: int | None
    new_size: int | None


def list_entries(
    repository: Repository,
    manifest: Manifest,
    path: bytes = b"/",
    *,
    recursive: bool = False,
    on_damage: OnDamage | None = None,
) -> Iterator[Found]:
    """What lies in a directory (or the entry itself), by raw name. Raises NotFound; `on_damage` as in `walk`."""
    node, listing = subtree(manifest.root, path, repository.reader)
    if listing is None:
        assert node is not None
        yield Found(path, node)
    elif recursive:
        yield from _below(repository, manifest, path, on_damage)
    else:
        for child in sorted(read_listing(listing, repository.reader), key=lambda found: found.name):
            yield Found(_join(path, child.name), child)


def _below(repository: Repository, manifest: Manifest, path: bytes, on_damage: OnDamage | None) -> Iterator[Found]:
    node, listing = subtree(manifest.root, path, repository.reader)
    if listing is None:
        return
    for visit in walk(listing, repository.reader, path=path, node=node, on_damage=on_damage):
        if isinstance(visit, Leave) or visit.node is None or visit.path == path:
            continue
        yield Found(visit.path, visit.node)


def find(
    repository: Repository, manifest: Manifest, matches: Chooser, on_damage: OnDamage | None = None
) -> Iterator[Found]:
    """Every entry that a pattern itself selects, in walk order; `on_damage` as in `walk`."""
    for found in _below(repository, manifest, b"/", on_damage):
        if matches.selects(found.path, found.node.is_dir):
            yield found


def open_file(
    repository: Repository,
    manifest: Manifest,
    path: bytes,
    *,
    days: int = THAW_DAYS,
    wait: bool = True,
    events: EventSink = ignore,
) -> Iterator[Buffer]:
    """The bytes of one file, holes as zeros; what is frozen of it is thawed before this returns.

    Raises NotFound, InvalidRequest for what is no file, TierNotAttached, ThawPending without `wait`.
    """
    node, _ = subtree(manifest.root, path, repository.reader)
    if node is None or not node.is_file:
        raise InvalidRequest(
            f"{printable(path)} is not a file",
            cause=f"it is {_KINDS.get(stat.S_IFMT(node.mode), 'a device, pipe or socket')}"
            if node
            else "it is the root",
            hint="`backstay ls` lists directories",
        )
    cold = ColdPacks(repository)
    if cold:
        cold.need_file(node)
        make_readable(repository, cold.needed(), days=days, wait=wait, events=events)
    return _file_bytes(repository, node)


def _file_bytes(repository: Repository, node: Node) -> Iterator[Buffer]:
    data = read_content(node.content, repository.reader) if node.content is not None else iter(())
    if node.extents is None:
        yield from data
        return
    rest = b""
    at = 0
    for start, length in node.extents:
        yield from _zeros(start - at)
        left = length
        while left:
            if not rest:
                rest = bytes(next(data))
            piece, rest = rest[:left], rest[left:]
            yield piece
            left -= len(piece)
        at = start + length
    yield from _zeros(node.size - at)


def _zeros(length: int) -> Iterator[bytes]:
    block = bytes(min(length, 1 << 20))
    while length > 0:
        yield block[:length]
        length -= len(block)


def diff(repository: Repository, old: Manifest, new: Manifest, *, metadata: bool = False) -> Iterator[Difference]:
    """What changed from one snapshot to the other, by path; equal subtrees are not even read.

    With `metadata` entries that differ in owner, mode, times or attributes only are told as well. Raises
    CorruptedBackup.
    """
    waiting: list[tuple[bytes, Content | None, Content | None, int]] = [(b"/", old.root, new.root, 0)]
    while waiting:
        path, before, after, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise CorruptedBackup("a snapshot nests its directories too deeply", cause=f"more than {MAX_DEPTH}")
        deeper: list[tuple[bytes, Content | None, Content | None, int]] = []
        for one, other in _side_by_side(_nodes(repository, before), _nodes(repository, after)):
            present = one or other
            assert present is not None
            place = _join(path, present.name)
            change = _compare(one, other, metadata=metadata)
            if change is not None:
                yield Difference(place, change, _size(one), _size(other))
            inside = _listing(one), _listing(other)
            if inside[0] != inside[1]:
                deeper.append((place, *inside, depth + 1))
        waiting.extend(reversed(deeper))


def _nodes(repository: Repository, listing: Content | None) -> Iterator[Node]:
    return iter(()) if listing is None else read_listing(listing, repository.reader)


def _side_by_side(old: Iterator[Node], new: Iterator[Node]) -> Iterator[tuple[Node | None, Node | None]]:
    """Pairs of the same kind and name, in listing order; None where one side has no such entry."""
    one, other = next(old, None), next(new, None)
    while one is not None or other is not None:
        if other is None or (one is not None and listing_key(one) < listing_key(other)):
            yield one, None
            one = next(old, None)
        elif one is None or listing_key(other) < listing_key(one):
            yield None, other
            other = next(new, None)
        else:
            yield one, other
            one, other = next(old, None), next(new, None)


def held(node: Node) -> tuple[object, ...]:
    """What an entry holds, to be compared: the digest is that of its extents joined, and base backups have none."""
    data = (node.sha256 or node.content, node.extents) if node.is_file else None
    return data, node.target, node.device, node.size


def _compare(old: Node | None, new: Node | None, *, metadata: bool) -> Change | None:
    if old is None:
        return "added"
    if new is None:
        return "removed"
    if stat.S_IFMT(old.mode) != stat.S_IFMT(new.mode):
        return "type"
    if held(old) != held(new):
        return "changed"
    if metadata and replace(old, content=None) != replace(new, content=None):
        return "metadata"
    return None


def _size(node: Node | None) -> int | None:
    return None if node is None or node.is_dir else node.size


def _listing(node: Node | None) -> Content | None:
    return node.content if node is not None and node.is_dir else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryStats:
    """How much a repository holds; sizes in bytes."""

    snapshots: int
    packs: int
    stored_bytes: int
    data_bytes: int
    meta_bytes: int
    raw_bytes: int
    index_segments: int
    source_bytes: int
    latest_bytes: int

    @property
    def compression(self) -> float:
        """Raw bytes of all chunks for each stored byte."""
        return self.raw_bytes / self.stored_bytes if self.stored_bytes else 1.0

    @property
    def deduplication(self) -> float:
        """Bytes of all snapshots as if each were restored, for each stored byte."""
        return self.source_bytes / self.stored_bytes if self.stored_bytes else 1.0


def stats(repository: Repository) -> RepositoryStats:
    """Count what the index names and the snapshots say."""
    live = repository.snapshots.shown()
    packs = [info for _, info in repository.index.packs()]
    sizes = {
        kind: sum(p.size for p in packs if p.kind is kind) for kind in (RecordKind.DATA_PACK, RecordKind.META_PACK)
    }
    newest = {s.source + s.host: s.stats.bytes for s in live}
    return RepositoryStats(
        snapshots=len(live),
        packs=len(packs),
        stored_bytes=sum(sizes.values()),
        data_bytes=sizes[RecordKind.DATA_PACK],
        meta_bytes=sizes[RecordKind.META_PACK],
        raw_bytes=sum(blob.raw for p in packs for blob in p.blobs if blob.kind != BlobKind.PADDING),
        index_segments=len(repository.index.segments()),
        source_bytes=sum(s.stats.bytes for s in live),
        latest_bytes=sum(newest.values()),
    )


def _join(path: bytes, name: bytes) -> bytes:
    return path + name if path.endswith(b"/") else path + b"/" + name
