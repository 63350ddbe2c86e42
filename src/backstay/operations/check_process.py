"""Checks whole packs in a process of its own, which waits for no interpreter lock."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from backstay.codec.digest import ChunkIds
from backstay.core.helper_process import BODY, Handler, HelperProcess
from backstay.errors import CorruptedBackup
from backstay.repository.check import Expected, check_pack
from backstay.repository.format import MAX_PACK
from backstay.repository.stored_blobs import BlobKeys

_PLACE: Final = "backstay.operations.check_process:checking"
_WHOLE: Final = b"whole"


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


def checking(settings: bytes) -> Handler:
    """What answers requests by these settings."""
    return _Checking(msgspec.msgpack.decode(settings, type=Settings)).answer


class _Checking:
    """Reads and decodes what it is asked for."""

    def __init__(self, settings: Settings) -> None:
        self._repository, self._epochs = settings.repository, settings.keys.epochs
        self._ids = ChunkIds(settings.keys.ids)
        self._requests = msgspec.msgpack.Decoder(Expected)
        self._buffer = bytearray()  # used again and again: fresh memory costs more than reading

    def answer(self, request: memoryview, files: list[int], room: memoryview) -> bytes:  # noqa: ARG002 - nothing comes along
        try:
            expected = self._requests.decode(request)
            check_pack(self._read(files[0], expected.size), expected, self._repository, self._ids, self._key)
        except (OSError, CorruptedBackup):
            return b"damaged"
        return _WHOLE

    def _key(self, epoch: int) -> bytes:
        try:
            return self._epochs[epoch]
        except KeyError:
            raise CorruptedBackup(f"there is no key for epoch {epoch}") from None

    def _read(self, file: int, size: int) -> memoryview:
        """As many bytes as the pack should have, and those beyond if there are more. Raises CorruptedBackup."""
        if os.fstat(file).st_size != size or size > MAX_PACK:
            raise CorruptedBackup("a pack has another size than the index says")
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        view = memoryview(self._buffer)[:size]
        done = 0
        while done < size:
            count = os.preadv(file, [view[done:]], done)
            if not count:
                raise CorruptedBackup("a pack got shorter while it was read")
            done += count
        return view
