"""What users give as a value: bytes, a file, a stream of bytes, or a JSON value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from backstay.codec.canonical_json import Json, canonical
from backstay.codec.compression import Buffer
from backstay.core.pieces import why_no_pieces
from backstay.errors import BackstayError, InvalidRequest, NotFound
from backstay.repository.logs.value_entries import IS_JSON, MAX_METADATA

_KINDS: Final = "a value is bytes, a path, a binary stream, an iterable of bytes, or a JSON value"
READ: Final = 1 << 20  # bytes read from a file at a time


@runtime_checkable
class Readable(Protocol):
    """A binary stream."""

    def read(self, size: int, /) -> bytes: ...


ValueContent: TypeAlias = Buffer | Path | Readable | Iterable[Buffer] | Json


def pieces_of(content: ValueContent) -> tuple[Iterator[bytes], int]:
    """The bytes of a value, piece by piece, and its flags. Raises InvalidRequest; reading raises NotFound too.

    Texts, numbers, lists, tuples, dicts, booleans and None are JSON values; of other iterables the items are pieces.
    """
    if isinstance(content, bytes | bytearray | memoryview):
        return iter([bytes(content)]), 0
    if isinstance(content, Path):
        return _of_file(content), 0
    if content is None or isinstance(content, bool | int | float | str | list | tuple | dict):
        return iter([canonical(content)]), IS_JSON
    why = _KINDS
    if not isinstance(content, type):  # a class has the methods of its values, but none of their bytes
        if isinstance(content, Readable):
            return _of_stream(content), 0
        if isinstance(content, Iterable) and not (why := why_no_pieces(content)):
            return _of_iterable(content), 0
    raise InvalidRequest(
        f"a {type(content).__name__} cannot be stored as a value",
        cause=why,
        hint="serialise it to bytes first",
    )


def encoded_metadata(metadata: Mapping[str, Json] | None) -> bytes | None:
    """Metadata as it is stored. Raises InvalidRequest for what is no JSON object, or is too large."""
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise InvalidRequest("the metadata of a value is no JSON object", cause=f"it is a {type(metadata).__name__}")
    encoded = canonical(dict(metadata), what="the metadata")
    if len(encoded) > MAX_METADATA:
        raise InvalidRequest(
            "the metadata of a value is too large",
            cause=f"it has {len(encoded)} bytes, and at most {MAX_METADATA} are kept",
            hint="store it as a value of its own, and refer to its id",
        )
    return encoded


def _of_file(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as stream:
            yield from _of_stream(stream)
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}", hint="check the path") from error
    except OSError as error:
        raise BackstayError(
            f"cannot read {path}", cause=error.strerror or str(error), hint="mend it, and try again"
        ) from error


def _of_stream(stream: Readable) -> Iterator[bytes]:
    for data in iter(partial(stream.read, READ), b""):
        if data is None:
            raise InvalidRequest(
                "a stream has nothing to give yet, and is not at its end",
                cause="it does not block, so that the value would be cut there",
                hint="let it block: os.set_blocking(stream.fileno(), True)",
            )
        yield _checked(data)


def _of_iterable(pieces: Iterable[Any]) -> Iterator[bytes]:
    for piece in pieces:
        yield _checked(piece)


def _checked(piece: Any) -> bytes:  # noqa: ANN401 - whatever a caller's stream gives
    if not isinstance(piece, bytes | bytearray | memoryview):
        raise InvalidRequest(
            f"a stream of values gave a {type(piece).__name__}",
            cause="only bytes can be stored",
            hint="open files in binary mode",
        )
    return bytes(piece)
