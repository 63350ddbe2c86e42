"""Bytes as what differs from other bytes: zstd frames that refer to those (docs/adr/0028-patched-contents.md)."""

from __future__ import annotations

from typing import Final

import zstandard

from backstay.codec.compression import MAX_WINDOW, Buffer
from backstay.errors import CorruptedBackup

MOST: Final = 8 << 20  # bytes on either side; a table of four times as many is made to find them again
_FAST: Final = 1  # level: with a base that fits, higher ones save 1 or 2 % and take three times as long
_LEAST_WINDOW: Final = 10  # zstd's own
_LEAST_HASH: Final = 12


def delta(data: Buffer, base: Buffer) -> bytes:
    """`data`, to be had again from `base` and this. Both have at most MOST bytes, and `data` at least one."""
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _FAST,
        source_size=len(data),
        dict_size=len(base),
        window_log=max(_LEAST_WINDOW, (len(data) + len(base)).bit_length()),  # so that all of the base is in reach
        hash_log=max(_LEAST_HASH, len(base).bit_length()),  # so that each place of it can be found again
        write_checksum=False,
        write_content_size=True,
    )
    return zstandard.ZstdCompressor(compression_params=parameters, dict_data=_prefix(base)).compress(data)


def undelta(packed: Buffer, base: Buffer, length: int) -> bytes:
    """Exactly the `length` bytes that `delta` was given with this base, in no more memory. Raises CorruptedBackup."""
    try:
        frame = zstandard.get_frame_parameters(packed)
        if frame.content_size != length or frame.dict_id or frame.window_size > max(MAX_WINDOW, length):
            raise CorruptedBackup("a zstd frame declares other sizes than its record")
        decoder = zstandard.ZstdDecompressor(dict_data=_prefix(base))
        raw = bytes(decoder.decompress(packed, read_across_frames=False, allow_extra_data=False))
    except zstandard.ZstdError as error:
        raise CorruptedBackup("a zstd frame cannot be decoded", cause=str(error)) from error
    if len(raw) != length:
        raise CorruptedBackup("stored data has the wrong length", cause=f"{len(raw)} bytes, not {length}")
    return raw


def _prefix(base: Buffer) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
