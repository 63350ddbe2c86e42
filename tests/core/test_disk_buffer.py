"""What a buffer for a disk asks of the kernel, and what it leaves behind."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import pytest

from backstay.core.memory import disk_buffer

LARGE = 2 << 20


def _mapping(memory: memoryview) -> str:
    """The line of /proc/self/maps that the memory lies in."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, _, end = line.split()[0].partition("-")
        if int(begin, 16) <= address < int(end, 16):
            return line
    raise AssertionError(hex(address))


@pytest.mark.parametrize("size", [1, 4096, LARGE, 5 << 20])
def test_its_pages_are_of_this_process_alone(size: int) -> None:
    assert _mapping(disk_buffer(size)).split()[1] == "rw-p"


def test_large_pages_are_asked_for_where_one_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []

    class Noting(mmap.mmap):
        def madvise(self, *advice: int) -> None:
            asked.append(advice)

    monkeypatch.setattr("backstay.core.memory.mmap.mmap", Noting)
    disk_buffer(LARGE - 1)
    assert asked == []
    disk_buffer(LARGE)
    assert asked == [(mmap.MADV_HUGEPAGE,)]


def test_a_part_keeps_all_of_it_and_nothing_keeps_more() -> None:
    part = disk_buffer(64 << 20)[LARGE : LARGE + 4]
    part[:] = b"part"
    before = _mapped()
    assert bytes(part) == b"part"
    del part
    assert before - _mapped() >= 64 << 20


def _mapped() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE


SIZES = [0, 1, 4095, 4096, (2 << 20) - 1, 2 << 20, (2 << 20) + 1, 5 << 20]


def _address(memory: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


@pytest.mark.parametrize("size", SIZES)
def test_a_buffer_for_a_disk_is_all_that_was_asked_for_and_begins_with_a_page(size: int) -> None:
    memory = disk_buffer(size)
    assert memory == bytes(size)
    if size:
        memory[-1] = 7
        assert _address(memory) % (2 << 20 if size >= 2 << 20 else mmap.PAGESIZE) == 0


def test_two_buffers_share_nothing() -> None:
    first, second = disk_buffer(3 << 20), disk_buffer(3 << 20)
    first[:] = b"1" * len(first)
    assert second == bytes(len(second))


def test_a_kernel_without_large_pages_gives_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(mmap.mmap):
        def madvise(self, *_: int) -> None:
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr("backstay.core.memory.mmap.mmap", Refusing)
    assert disk_buffer(3 << 20) == bytes(3 << 20)
