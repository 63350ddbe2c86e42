"""Reads of packs from afar in larger pieces, since the neighbours of what is asked for are asked for next."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import CancelledError, Future
from typing import Final, TypeAlias

from backstay.storage.backend import StorageBackend
from backstay.storage.wrapper import Wrapper

PIECE: Final = 4 << 20  # bytes read at a time
KEPT: Final = 8  # pieces
AHEAD_OF: Final = "packs/"  # other objects are read whole

_Key: TypeAlias = tuple[str, int]


class ReadAhead(Wrapper):
    """Keeps the pieces read last; packs never change, so that nothing kept becomes wrong.

    A piece may have been wrong from the start, which only its reader finds out, and calls `forget_reads`.
    """

    def __init__(self, inner: StorageBackend) -> None:
        super().__init__(inner)
        self._pieces: OrderedDict[_Key, Future[bytes]] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._lock = threading.Lock()

    def retrieve(self, name: str, *, start: int = 0, length: int | None = None) -> bytes:
        if length is None or not 0 < length < PIECE or start < 0 or not name.startswith(AHEAD_OF):
            return self.inner.retrieve(name, start=start, length=length)
        size = self._size(name)
        end = start + length
        if end > size:
            return self.inner.retrieve(name, start=start, length=length)  # says what is wrong with that
        first = start // PIECE
        parts = [self._piece(name, number, size) for number in range(first, (end - 1) // PIECE + 1)]
        at = start - first * PIECE
        if len(parts) == 1:
            return parts[0][at : at + length]
        return b"".join(parts)[at : at + length]

    def delete(self, name: str) -> None:
        self.inner.delete(name)
        with self._lock:
            self._sizes.pop(name, None)
            for key in [key for key in self._pieces if key[0] == name]:
                del self._pieces[key]

    def forget_reads(self) -> None:
        with self._lock:
            self._pieces.clear()
            self._sizes.clear()
        self.inner.forget_reads()

    def _size(self, name: str) -> int:
        with self._lock:
            known = self._sizes.get(name)
        if known is None:
            known = self.inner.stat(name).size
            with self._lock:
                if len(self._sizes) >= 1 << 16:
                    self._sizes.clear()
                self._sizes[name] = known
        return known

    def _piece(self, name: str, number: int, size: int) -> bytes:
        """One piece; several threads that ask for the same one wait for the first."""
        key = (name, number)
        while True:
            with self._lock:
                found = self._pieces.get(key)
                mine = found is None
                if found is None:
                    found = self._pieces[key] = Future()
                self._pieces.move_to_end(key)
                while len(self._pieces) > KEPT:
                    self._pieces.popitem(last=False)
            if mine:
                self._fill(key, found, size)
            try:
                return found.result()
            except CancelledError:
                if not found.cancelled():  # else who fetched it was stopped, and nobody has told this thread to stop
                    raise

    def _fill(self, key: _Key, piece: Future[bytes], size: int) -> None:
        name, number = key
        start = number * PIECE
        try:
            piece.set_result(self.inner.retrieve(name, start=start, length=min(PIECE, size - start)))
        except Exception as error:  # noqa: BLE001 - handed to all who wait for the piece
            self._forget(key, piece)
            piece.set_exception(error)
        except BaseException:  # Ctrl-C, which means this thread alone
            self._forget(key, piece)
            piece.cancel()
            raise

    def _forget(self, key: _Key, piece: Future[bytes]) -> None:
        """Whoever asks for it from now on tries again."""
        with self._lock:
            if self._pieces.get(key) is piece:
                del self._pieces[key]
