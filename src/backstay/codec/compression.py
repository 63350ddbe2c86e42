"""zstd and gzip, a shortcut for data that does not compress, and decoding that cannot be blown up."""

from __future__ import annotations

import threading
import zlib
from typing import Final, Literal, TypeAlias

import zstandard

from backstay.errors import CorruptedBackup, InvalidRequest

RAW: Final = 0
ZSTD: Final = 1
GZIP: Final = 2

Method: TypeAlias = Literal["zstd", "gzip", "none"]
Buffer: TypeAlias = bytes | bytearray | memoryview

MAX_WINDOW: Final = 8 << 20  # bytes of history a zstd frame may ask for
_PROBE_FROM: Final = 512 << 10  # below this a failed attempt costs less than a probe
_PROBE_PIECE: Final = 16 << 10
_WORTH: Final = 0.97  # compressed must be at most this part of raw


class Compressor:
    """Compresses chunks by one method and level; may be used by several threads.

    Without a level zstd runs as fast as about its level 1 and packs about as well as its level 2
    (docs/adr/0006-compression.md).
    """

    def __init__(self, method: Method = "zstd", level: int | None = None) -> None:
        limits = {"zstd": (1, 19, 0), "gzip": (1, 9, 6), "none": (0, 0, 0)}
        if method not in limits:
            raise InvalidRequest(f"unknown compression {method!r}", hint="use zstd, gzip or none")
        low, high, default = limits[method]
        self.method = method
        self.level = default if level is None else level
        if level is not None and not low <= level <= high:
            raise InvalidRequest(f"{method} has no level {level}", hint=f"levels go from {low} to {high}")
        # The strategy fast takes ever longer steps through what does not compress: 4 GB/s, so that trying is the probe.
        self._gives_up_quickly = method == "zstd" and not self.level
        self._local = threading.local()

    def compress(self, data: Buffer, *, quick: bool = False) -> tuple[int, Buffer]:
        """(codec id, stored bytes); RAW and `data` itself when compression saves less than 3 %.

        `quick` is for parts of large files: a fifth faster, and some percent larger.
        """
        if self.method == "none" or not data or not self._is_worth_trying(data):
            return RAW, data
        codec, packed = self._pack(data, quick=quick)
        return (codec, packed) if len(packed) <= len(data) * _WORTH else (RAW, data)

    def _pack(self, data: Buffer, *, quick: bool) -> tuple[int, bytes]:
        if self.method == "gzip":
            packer = zlib.compressobj(self.level, zlib.DEFLATED, 31)
            return GZIP, packer.compress(data) + packer.flush()
        name = "quick" if quick else "zstd"
        try:
            zstd: zstandard.ZstdCompressor = getattr(self._local, name)
        except AttributeError:  # a context serves one thread at a time
            zstd = _zstd_compressor(self.level, quick=quick)
            setattr(self._local, name, zstd)
        return ZSTD, zstd.compress(data)

    def _is_worth_trying(self, data: Buffer) -> bool:
        size = len(data)
        if size < _PROBE_FROM or self._gives_up_quickly:
            return True
        view = memoryview(data)
        step = (size - _PROBE_PIECE) // 3
        sample = b"".join(view[at : at + _PROBE_PIECE] for at in range(0, size - _PROBE_PIECE + 1, step))
        return len(self._pack(sample, quick=True)[1]) <= len(sample) * _WORTH


def _zstd_compressor(level: int, *, quick: bool) -> zstandard.ZstdCompressor:
    if level:
        return zstandard.ZstdCompressor(level=level, write_checksum=False)
    parameters = zstandard.ZstdCompressionParameters(
        strategy=zstandard.STRATEGY_FAST,
        window_log=21,
        hash_log=14 if quick else 15,
        min_match=6,
        write_checksum=False,
        write_content_size=True,
    )
    return zstandard.ZstdCompressor(compression_params=parameters)


_local = threading.local()


def decompress(codec: int, data: Buffer, raw_length: int) -> Buffer:
    """Exactly `raw_length` bytes, or CorruptedBackup; memory stays within that length whatever the data says.

    A zstd frame must declare that very length, one window of at most MAX_WINDOW or the length itself, no
    dictionary, and nothing may follow it.
    """
    if codec == RAW:
        raw: Buffer = data
    elif codec == ZSTD:
        raw = _unzstd(data, raw_length)
    elif codec == GZIP:
        raw = _gunzip(data, raw_length)
    else:
        raise CorruptedBackup(f"unknown compression codec {codec}")
    if len(raw) != raw_length:
        raise CorruptedBackup("stored data has the wrong length", cause=f"{len(raw)} bytes, not {raw_length}")
    return raw


def _unzstd(data: Buffer, raw_length: int) -> bytes:
    try:
        frame = zstandard.get_frame_parameters(data)
        if frame.content_size != raw_length or frame.dict_id or frame.window_size > max(MAX_WINDOW, raw_length):
            raise CorruptedBackup("a zstd frame declares other sizes than its record")
        try:
            decoder = _local.zstd
        except AttributeError:
            decoder = _local.zstd = zstandard.ZstdDecompressor()
        # The frame was just found to declare raw_length, so the output buffer has that size and no more.
        return bytes(decoder.decompress(data, read_across_frames=False, allow_extra_data=False))
    except zstandard.ZstdError as error:
        raise CorruptedBackup("a zstd frame cannot be decoded", cause=str(error)) from error


def _gunzip(data: Buffer, raw_length: int) -> bytes:
    decoder = zlib.decompressobj(31)
    try:
        raw = decoder.decompress(data, raw_length + 1)
    except zlib.error as error:
        raise CorruptedBackup("a gzip stream cannot be decoded", cause=str(error)) from error
    if not decoder.eof or decoder.unused_data or decoder.unconsumed_tail:
        raise CorruptedBackup("a gzip stream does not end where its record ends")
    return raw
