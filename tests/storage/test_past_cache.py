"""Large objects go past the page cache where that is possible, and are the same in any case."""

from __future__ import annotations

import errno
import mmap
import os
import random
from pathlib import Path

import pytest

from backstay.errors import InsufficientSpace
from backstay.storage.filesystem_seam import Filesystem
from backstay.storage.local import LocalStorage
from backstay.testing.filesystem import FaultyFilesystem

MIB = 1 << 20
SIZES = (MIB - 1, MIB, MIB + 1, MIB + 4095, MIB + 4096, 3 * MIB + 511, 5 * MIB)


def aligned(size: int) -> memoryview:
    """Random bytes in memory as packs have it."""
    buffer = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    buffer[:] = random.Random(size).randbytes(size)
    return memoryview(buffer)


class Watched(Filesystem):
    """Remembers how much was written past the cache, and how much through it; may refuse to have such a way."""

    def __init__(self, *, refuses: bool = False, most: int = 1 << 30) -> None:
        self.refuses, self.most = refuses, most
        self.past = self.through = 0
        self._is_past = False

    def bypass_cache(self, descriptor: int, bypass: bool) -> None:
        if self.refuses:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        super().bypass_cache(descriptor, bypass)
        self._is_past = bypass

    def write(self, descriptor: int, data: memoryview) -> int:
        taken = super().write(descriptor, data[: self.most])
        if self._is_past:
            self.past += taken
        else:
            self.through += taken
        return taken


@pytest.mark.parametrize("size", SIZES)
def test_every_byte_of_an_aligned_buffer_arrives(tmp_path: Path, size: int) -> None:
    filesystem = Watched()
    storage = LocalStorage(tmp_path, filesystem=filesystem)
    data = aligned(size)
    storage.store("packs/a", data)
    assert storage.retrieve("packs/a") == data
    assert filesystem.past + filesystem.through == size
    if size >= MIB and _can_bypass(tmp_path):
        assert filesystem.through == size % 4096


def _can_bypass(place: Path) -> bool:
    """Whether this file system takes writes past its cache at all; one in memory may not."""
    fd = os.open(place / "probe", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        Filesystem().bypass_cache(fd, True)
        return os.write(fd, aligned(4096)) == 4096
    except OSError:
        return False
    finally:
        os.close(fd)


@pytest.mark.parametrize("size", SIZES)
def test_a_buffer_at_an_odd_address_arrives_as_well(tmp_path: Path, size: int) -> None:
    storage = LocalStorage(tmp_path)
    data = aligned(size + 3)[3:]
    storage.store("packs/a", data)
    assert storage.retrieve("packs/a") == data


@pytest.mark.parametrize("size", SIZES)
def test_a_file_system_without_such_a_way_is_written_as_usual(tmp_path: Path, size: int) -> None:
    filesystem = Watched(refuses=True)
    storage = LocalStorage(tmp_path, filesystem=filesystem)
    data = aligned(size)
    storage.store("packs/a", data)
    assert storage.retrieve("packs/a") == data
    assert filesystem.past == 0


@pytest.mark.parametrize("most", [4096, 5000, 1 << 20])
def test_short_writes_end_in_the_whole_object(tmp_path: Path, most: int) -> None:
    storage = LocalStorage(tmp_path, filesystem=Watched(most=most))
    data = aligned(2 * MIB + 77)
    storage.store("packs/a", data)
    assert storage.retrieve("packs/a") == data


@pytest.mark.parametrize("at", [1, 2])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, at: int) -> None:
    filesystem = FaultyFilesystem(at=at, fault=errno.ENOSPC, operations=frozenset({"write"}), repeat=True)
    storage = LocalStorage(tmp_path / "store", filesystem=filesystem)
    with pytest.raises(InsufficientSpace):
        storage.store("packs/a", aligned(2 * MIB + 5))
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []
