"""Long lists of chunk ids, however they come together, make the same content."""

from __future__ import annotations

import os

import pytest

from backstay.core.pipeline import Workers
from backstay.errors import CorruptedBackup
from backstay.repository.blobs.contents import (
    MAX_DEPTH,
    MAX_IDS,
    ContentWriter,
    all_chunk_ids,
    chunk_ids,
    content_of,
    read_content,
)
from backstay.repository.nodes import PATCHED, Content
from backstay.repository.repository import Repository
from backstay.storage.memory import MemoryStorage
from backstay.trust.secrets import Secret


@pytest.mark.parametrize("count", [0, 1, MAX_IDS, MAX_IDS + 1, 2 * MAX_IDS + 2, 50_000])
def test_content_written_bit_by_bit_is_that_of_the_whole_list(count: int) -> None:
    ids = [os.urandom(32) for _ in range(count)]
    with Repository.create(MemoryStorage(), Secret.new_keyfile()) as repository, repository.begin_session():
        with Workers(2, "seal") as workers:
            writer = repository.writer(workers)
            made = writer, repository.keyring.chunk_ids, repository.listing_chunker
            piecewise = ContentWriter(*made)
            for chunk in ids:
                piecewise.add(chunk)
            content = piecewise.finish()
            assert content == content_of(ids, *made)
            writer.flush()
            for packs, _ in writer.settled():
                repository.index.write(packs)
            writer.close()
        assert [*chunk_ids(content, repository.reader)] == ids


@pytest.mark.parametrize("depth", [-1, MAX_DEPTH + 1, PATCHED - 1, PATCHED + MAX_DEPTH + 1, 2 * PATCHED, 10**9])
def test_a_depth_that_no_writer_makes_is_damage_and_not_gone_down_to(depth: int) -> None:
    with Repository.create(MemoryStorage(), Secret.new_keyfile()) as repository:
        for use in (all_chunk_ids, chunk_ids, read_content):
            with pytest.raises(CorruptedBackup, match="deeply"):
                list(use(Content(depth, bytes(32)), repository.reader))
