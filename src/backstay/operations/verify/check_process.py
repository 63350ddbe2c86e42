"""Checks whole packs in a process of its own, which waits for no interpreter lock."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import msgspec

from backstay.codec.digest import ChunkIds
from backstay.core.helper_process import BODY, Handler, HelperProcess
from backstay.core.past_cache import Bytes, PastCacheReader
from backstay.errors import CorruptedBackup
from backstay.repository.checking.packs import Expected, check_pack
from backstay.repository.format import MAX_PACK
from backstay.repository.packs.blobs import BlobKeys

_PLACE: Final = "backstay.operations.verify.check_process:checking"
_WHOLE: Final = b"whole"
_DAMAGED: Final = b"damaged"


class Settings(msgspec.Struct, array_like=True):
    """Whose packs they are, and what opens them."""

    repository: bytes
    keys: BlobKeys


class CheckProcess(HelperProcess):
    """The asking side."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(_PLACE, msgspec.msgpack.encode(settings), room=0)

    def request(self, expected: Expected, file: int) -> bool:
        """Ask for a pack, which is all that a file holds; false if that is too much. Raises HelperGone."""
        body = msgspec.msgpack.encode(expected)
        if len(body) > BODY:
            return False
        self.ask(body, [file])
        return True

    @contextmanager
    def checked(self) -> Iterator[bool]:
        """Whether the pack that was asked for first is whole; what is wrong with it else is not told here.

        Raises HelperGone.
        """
        with self.answer() as (body, _):
            yield bytes(body) == _WHOLE


# -- the process


def checking(settings: bytes) -> Handler[_Prepared]:
    """What answers requests by these settings."""
    return _Checking(msgspec.msgpack.decode(settings, type=Settings))


class _Prepared(NamedTuple):
    """A pack's bytes; None when they are not as many as they should be, or could not be read."""

    expected: Expected
    data: Bytes | None


class _Checking:
    """Reads and decodes what it is asked for."""

    def __init__(self, settings: Settings) -> None:
        self._repository, self._epochs = settings.repository, settings.keys.epochs
        self._ids = ChunkIds(settings.keys.ids)
        self._requests = msgspec.msgpack.Decoder(Expected)
        self._reader = PastCacheReader(buffers=2)

    def prepare(self, request: memoryview, files: list[int]) -> _Prepared:
        expected = self._requests.decode(request)
        try:
            if os.fstat(files[0]).st_size != expected.size or expected.size > MAX_PACK:
                return _Prepared(expected, None)
            return _Prepared(expected, self._reader.read(files[0], expected.size))
        except OSError:
            return _Prepared(expected, None)

    def answer(self, prepared: _Prepared, files: list[int], room: memoryview) -> bytes:  # noqa: ARG002 - nothing comes along
        expected, data = prepared
        if data is None:
            return _DAMAGED
        try:
            check_pack(data.view, expected, self._repository, self._ids, self._key)
        except CorruptedBackup:
            return _DAMAGED
        finally:
            data.release()
        return _WHOLE

    def _key(self, epoch: int) -> bytes:
        try:
            return self._epochs[epoch]
        except KeyError:
            raise CorruptedBackup(f"there is no key for epoch {epoch}") from None
