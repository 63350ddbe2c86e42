"""What a recomputation gave: its bytes, measured and named, in memory where they are few and in a file where not."""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from backstay.codec.canonical_json import canonical
from backstay.core.pieces import why_no_pieces
from backstay.errors import InvalidRequest, RecomputeFailed, RecomputeTimeout
from backstay.graph.stopping import Stopper

SMALL: Final = 256 << 10  # bytes of a result that may stay in memory
PIECE: Final = 1 << 20  # bytes read at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Produced:
    """The bytes of one output, under their id. They lie in `data` or in `path`, a file of the run's own."""

    key: str
    size: int
    data: bytes = b""
    path: Path | None = None

    def pieces(self) -> Iterator[bytes]:
        """The bytes, in pieces of at most a MiB."""
        if self.path is None:
            yield self.data
            return
        with self.path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece

    def moved(self, path: Path) -> Produced:
        """The same with its file, if it has one, at another place on the same file system."""
        return self if self.path is None else replace(self, path=self.path.replace(path))

    def forget(self) -> None:
        """Remove the file, if there is one."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def spool(value: object, scratch: Path, stopper: Stopper | None = None) -> Produced:
    """Take what a function returned: bytes, a Path, a stream or iterable of bytes, or a JSON value.

    A JSON value becomes its canonical form by RFC 8785. The file of a Path is copied, unless it lies in `scratch`.
    Raises RecomputeFailed for what is none of these, and RecomputeTimeout once `stopper` was told to stop.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return spool_pieces([bytes(value)], scratch)
    if isinstance(value, Path):
        return _spool_file(value, scratch, stopper)
    if callable(getattr(value, "read", None)):
        return spool_pieces(_read(value), scratch, stopper)
    if value is None or isinstance(value, str | int | float | dict | list | tuple):
        return spool_pieces([_canonical(value)], scratch)
    why = f"it is of type {type(value).__name__}"
    if isinstance(value, Iterable):
        if not (no_pieces := why_no_pieces(value)):
            return spool_pieces(value, scratch, stopper)
        why += f", and {no_pieces}"
    raise RecomputeFailed(
        "a recomputation gave something that is no output",
        cause=why,
        hint="return bytes, a JSON value, a Path, or a stream or iterable of bytes",
    )


def spool_pieces(pieces: Iterable[object], scratch: Path, stopper: Stopper | None = None) -> Produced:
    """Take pieces as they come; they go to a file as soon as they are more than a little.

    Once `stopper` was told to stop no more is taken: what has no end would fill the disk. Raises RecomputeTimeout then.
    """
    digest, size, held = hashlib.sha256(), 0, io.BytesIO()
    out: IO[bytes] | None = None
    try:
        for piece in pieces:
            if stopper is not None and stopper.stopped:
                raise RecomputeTimeout("the recomputation was given up while it gave its output")
            if not isinstance(piece, bytes | bytearray | memoryview):
                raise RecomputeFailed(
                    "a recomputation gave a stream of something else than bytes",
                    cause=f"it has a piece of type {type(piece).__name__}",
                )
            digest.update(piece)
            size += memoryview(piece).nbytes
            if out is None and size > SMALL:
                out = tempfile.NamedTemporaryFile(dir=scratch, prefix="out-", delete=False)  # noqa: SIM115
                out.write(held.getbuffer())
            (out or held).write(piece)
    finally:
        if out is not None:
            out.close()
    key = f"sha256:{digest.hexdigest()}"
    if out is None:
        return Produced(key=key, size=size, data=held.getvalue())
    return Produced(key=key, size=size, path=Path(out.name))


def _spool_file(path: Path, scratch: Path, stopper: Stopper | None) -> Produced:
    try:
        with path.open("rb") as file:
            if path.parent != scratch:
                return spool_pieces(_read(file), scratch, stopper)
            digest = hashlib.file_digest(file, "sha256")
            return Produced(key=f"sha256:{digest.hexdigest()}", size=file.tell(), path=path)
    except OSError as error:
        raise RecomputeFailed(
            f"a recomputation gave the file {path}, which cannot be read", cause=error.strerror or str(error)
        ) from error


def _read(stream: Any) -> Iterator[object]:  # noqa: ANN401 - whatever has a `read`
    # None, of a stream that does not block, is no end of it.
    yield from iter(partial(stream.read, PIECE), b"")


def _canonical(value: object) -> bytes:
    try:
        return canonical(value)
    except InvalidRequest as error:
        raise RecomputeFailed("a recomputation gave a value that is no JSON", cause=error.cause) from error
