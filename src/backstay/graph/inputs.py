"""What a node is made from, as its recomputation sees it: nothing is loaded before it is asked for."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

from backstay.errors import CorruptedBackup, InputLost, NotFound, OutputMismatch

Bytes: TypeAlias = bytes  # within Input the name is a method's
Pieces: TypeAlias = Iterator[bytes]
Opener: TypeAlias = Callable[[str], Pieces]
_BUFFER: Final = 256 << 10


class Input:
    """The output of one dependency."""

    def __init__(self, name: str, pieces: Callable[[], Pieces], scratch: Path) -> None:
        self.id = name
        self._pieces, self._scratch = pieces, scratch
        self._path: Path | None = None

    def pieces(self) -> Pieces:
        """Its bytes as they come; raises InputLost."""
        return self._pieces()

    def bytes(self) -> Bytes:
        """All its bytes; raises InputLost."""
        return b"".join(self._pieces())

    def json(self) -> Any:  # noqa: ANN401 - whatever the document holds
        """The value of a JSON document; raises InputLost, ValueError."""
        return json.loads(self.bytes())

    def open(self) -> IO[Bytes]:
        """A stream to read it from, with little of it in memory; reading raises InputLost."""
        return io.BufferedReader(_Pieces(self._pieces()), _BUFFER)

    def path(self) -> Path:
        """A file with its bytes, which is gone when the recomputation ends; raises InputLost."""
        if self._path is None:
            with tempfile.NamedTemporaryFile(dir=self._scratch, prefix="in-", delete=False) as file:
                for piece in self._pieces():
                    file.write(piece)
            self._path = Path(file.name)
        return self._path


class Inputs(Mapping[str, Input]):
    """The inputs of a node by the ids of its dependencies, in their order.

    `lost` are those that could not be read when they were asked for.
    """

    def __init__(self, names: tuple[str, ...], opener: Opener, scratch: Path) -> None:
        self._opener = opener
        self._inputs = {name: Input(name, lambda name=name: self._read(name), scratch) for name in names}  # type: ignore[misc]
        self.lost: set[str] = set()

    def __getitem__(self, name: str) -> Input:
        return self._inputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)

    def _read(self, name: str) -> Pieces:
        try:
            yield from self._opener(name)
        except (NotFound, CorruptedBackup, OutputMismatch, OSError) as error:
            self.lost.add(name)
            raise InputLost(f"the output of {name} cannot be read", cause=str(error)) from error


class _Pieces(io.RawIOBase):
    """A stream over pieces of bytes."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces_left = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, room: Any) -> int:  # noqa: ANN401 - any writable buffer
        while not self._rest:
            piece = next(self._pieces_left, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(room), len(self._rest))
        room[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
