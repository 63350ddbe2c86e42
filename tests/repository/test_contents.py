"""Long lists of chunk ids, however they come together, make the same content."""

from __future__ import annotations

import os

import pytest

from backstay.core.pipeline import Workers
from backstay.repository.blobs.contents import MAX_IDS, ContentWriter, chunk_list, content_of
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
        assert chunk_list(content, repository.reader) == ids
