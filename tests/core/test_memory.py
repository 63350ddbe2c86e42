"""How memory is kept and looked through."""

from __future__ import annotations

import ctypes
import mmap
import subprocess
import sys

import pytest

from backstay.core.memory import disk_buffer

# In a process of its own: what it sets holds for all that comes later.
SCRIPT = """
import gc, weakref
from backstay.core.memory import tune_for_large_buffers

class Thing: ...

def lost():
    thing = Thing()
    thing.itself = thing
    tune_for_large_buffers()
    return weakref.ref(thing)

kept = lost()
gone = lost()
gc.collect()
print(kept() is not None, gone() is None)
"""


def test_what_becomes_garbage_after_the_first_of_several_operations_is_found() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True True\n", "")


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
