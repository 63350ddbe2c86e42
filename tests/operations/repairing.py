"""A small repository to be damaged and repaired, and its objects."""

from __future__ import annotations

from pathlib import Path

from backstay.repository.format import RecordKind
from backstay.repository.nodes import Content
from backstay.repository.repository import Repository
from backstay.repository.trees.listings import find_node
from tests.crash.small_world import World, content, small_tree


def two_snapshots(place: Path) -> World:
    """Two snapshots, the second with a changed and a new file."""
    world = World(place / "repository")
    world.create().close()
    with world.open() as repository:
        world.backup(repository, small_tree())
    with world.open() as repository:
        world.backup(repository, second_tree())
    return world


def second_tree() -> dict[bytes, bytes]:
    return small_tree() | {b"/d1/f01": content(7, 900), b"/d2/new": content(8, 200_000)}


def objects(world: World, below: str) -> list[Path]:
    return sorted(path for path in (world.directory / below).rglob("*") if path.is_file())


def damage(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at if at >= 0 else len(data) // 2] ^= 1
    path.write_bytes(data)


def pack_of(repository: Repository, ulid: str, path: bytes) -> Path:
    """The object that holds the first chunk of a file."""
    node = find_node(repository.snapshots.get(ulid).root, path, repository.reader)
    assert node is not None
    assert node.content is not None
    return object_of(repository, node.content)


def object_of(repository: Repository, holds: Content) -> Path:
    place = repository.reader.place(holds.ids[:32])
    info = repository.index.pack(place.pack)
    text = info.digest.hex()
    kind = "packs" if info.kind is RecordKind.DATA_PACK else "meta"
    return Path(repository.backend.url) / kind / text[:2] / text
