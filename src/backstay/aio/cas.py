"""The content-addressed store for programs on asyncio: each call runs on one thread of its own, in their order."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from backstay.codec.canonical_json import Json
from backstay.core.arguments import checks_arguments
from backstay.errors import InvalidRequest
from backstay.repository.cas import ContentAddressableStorage, ValueInfo
from backstay.repository.repository import Repository
from backstay.repository.values.content import ValueContent

Result = TypeVar("Result")


@checks_arguments
class AsyncContentAddressableStorage:
    """As `ContentAddressableStorage`, to be awaited; use it as an async context manager, or `close` it.

    A call that is cancelled is not undone: what it had begun goes on, and ends on its thread. After `close` each
    call raises InvalidRequest.
    """

    def __init__(self, repository: Repository) -> None:
        self._cas = ContentAddressableStorage(repository)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cas")
        self._is_closed = False

    async def store(
        self, content: ValueContent, metadata: Mapping[str, Json] | None = None, *, base: str | None = None
    ) -> str:
        """Store a value; its id, when it is durable."""
        return await self._call(lambda: self._cas.store(content, metadata, base=base))

    async def store_many(self, contents: Iterable[ValueContent]) -> builtins.list[str]:
        """Store values in one batch; their ids, in order."""

        def store() -> builtins.list[str]:
            with self._cas.batch() as batch:
                return [batch.store(content) for content in contents]

        return await self._call(store)

    async def retrieve(self, key: str) -> bytes:
        """The bytes of a value. Raises NotFound."""
        return await self._call(lambda: self._cas.retrieve(key))

    async def load(self, key: str) -> Json:
        """The JSON value that was stored. Raises NotFound, InvalidRequest."""
        return await self._call(lambda: self._cas.load(key))

    async def open(self, key: str) -> AsyncIterator[bytes]:
        """The bytes of a value, piece by piece. Raises NotFound."""
        pieces = await self._call(lambda: self._cas.open(key))
        while (piece := await self._call(lambda: next(pieces, None))) is not None:
            yield piece

    async def exists(self, key: str) -> bool:
        """Whether a value is there."""
        return await self._call(lambda: self._cas.exists(key))

    async def missing(self, keys: Iterable[str]) -> builtins.list[str]:
        """Those of many ids that have no value, in the order of their ids."""
        return await self._call(lambda: self._cas.missing(keys))

    async def unavailable(self, keys: Iterable[str]) -> builtins.list[str]:
        """Those of many ids that cannot be had, in the order of their ids."""
        return await self._call(lambda: self._cas.unavailable(keys))

    async def info(self, key: str) -> ValueInfo:
        """What is known of a value. Raises NotFound."""
        return await self._call(lambda: self._cas.info(key))

    async def delete(self, key: str, *, force: bool = False) -> bool:
        """Remove a value; False if it is not there. Raises ValueInUse, ValueBusy."""
        return await self._call(lambda: self._cas.delete(key, force=force))

    async def discard(self, keys: Iterable[str]) -> builtins.list[str]:
        """Remove those of the values that no snapshot refers to; the ids of what went. Raises ValueBusy."""
        return await self._call(lambda: self._cas.discard(keys))

    async def list(self) -> builtins.list[str]:
        """The ids of all values, in order."""
        return await self._call(lambda: [*self._cas.list()])

    async def _call(self, work: Callable[[], Result]) -> Result:
        if self._is_closed:
            raise InvalidRequest(
                "the store of values is closed",
                cause="its thread has ended with `close`, or with the `async with`",
                hint="make another one of the same repository",
            )
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Wait for what was begun. The repository stays open: it is its owner's."""
        self._is_closed = True
        await asyncio.to_thread(self._thread.shutdown)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
