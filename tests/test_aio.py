"""The asynchronous face of the content-addressed store."""

from __future__ import annotations

import asyncio

import pytest

from backstay.aio import AsyncContentAddressableStorage
from backstay.errors import InvalidRequest, NotFound
from backstay.repository.repository import Repository
from backstay.testing import MemoryStorage
from tests.operations.copies import SECRET


async def _use(repository: Repository) -> None:
    async with AsyncContentAddressableStorage(repository) as cas:
        keys = await asyncio.gather(*(cas.store(b"value %d" % number) for number in range(20)))
        keys += await cas.store_many([{"a": 1}, bytes(300_000)])
        assert await cas.list() == sorted(keys)
        assert await cas.retrieve(keys[3]) == b"value 3"
        assert await cas.load(keys[20]) == {"a": 1}
        assert b"".join([piece async for piece in cas.open(keys[21])]) == bytes(300_000)
        assert (await cas.info(keys[21])).size == 300_000
        assert await cas.delete(keys[0])
        assert not await cas.exists(keys[0])
        assert await cas.missing(keys[:3]) == await cas.unavailable(keys[:3]) == keys[:1]
        assert await cas.discard(keys[:2]) == keys[1:2]
        with pytest.raises(NotFound):
            await cas.retrieve(keys[0])
    with pytest.raises(InvalidRequest, match="closed"):
        await cas.exists(keys[2])


def test_what_is_awaited_is_done() -> None:
    with Repository.create(MemoryStorage(), SECRET) as repository:
        asyncio.run(_use(repository))
