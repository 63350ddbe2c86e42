"""Frames of a stat stream have the elements that the format names, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest

from backstay.core.pipeline import Workers
from backstay.errors import CorruptedBackup
from backstay.repository.blobs.contents import MetaWriter, frame
from backstay.repository.nodes import EMPTY
from backstay.repository.repository import Repository
from backstay.repository.trees.stat_stream import ENTER, LEAVE, PAGE, StatCursor
from backstay.storage.memory import MemoryStorage
from backstay.trust.secrets import Secret

Read = Callable[[bytes], None]
ROW = (b"file", 0o100644, 5, 1, 2, 3)


@pytest.fixture(scope="module")
def read() -> Iterator[Read]:
    with Repository.create(MemoryStorage(), Secret.new_keyfile()) as repository, Workers(1, "seal") as workers:

        def follow(frames: bytes) -> None:
            writer = repository.writer(workers)
            stream = MetaWriter(writer, repository.keyring.chunk_ids, repository.listing_chunker)
            stream.write(frames)
            content = stream.finish()
            writer.flush()
            repository.index.write(writer.take_packs())
            writer.close()
            cursor = StatCursor(content, repository.reader)
            cursor.enter(b"")
            cursor.page()
            cursor.leave()

        yield follow


def stream(enter: object, page: object, leave: object) -> bytes:
    encode = msgspec.msgpack.encode
    return frame(ENTER, encode(enter)) + frame(PAGE, encode(page)) + frame(LEAVE, encode(leave))


ENTERED, PAGED, LEFT = (b"", [ROW]), [ROW], (EMPTY, 2, 10)


def test_frames_as_the_format_says_are_read(read: Read) -> None:
    read(stream(ENTERED, PAGED, LEFT))


@pytest.mark.parametrize(
    "frames",
    [
        stream((*ENTERED, 0), PAGED, LEFT),
        stream(ENTERED[:1], PAGED, LEFT),
        stream((b"", [(*ROW, 0)]), PAGED, LEFT),
        stream(ENTERED, [(*ROW, 0)], LEFT),
        stream(ENTERED, [ROW[:-1]], LEFT),
        stream(ENTERED, PAGED, (*LEFT, 0)),
        stream(ENTERED, PAGED, LEFT[:-1]),
    ],
)
def test_frames_with_other_elements_are_damage(read: Read, frames: bytes) -> None:
    with pytest.raises(CorruptedBackup, match="stat stream cannot be read"):
        read(frames)
