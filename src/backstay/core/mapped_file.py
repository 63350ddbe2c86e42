"""What a library has mapped of a file counts as memory of this process, as far as it was read, until it is let go."""

from __future__ import annotations

import ctypes
import mmap
import os
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

_MAPS: Final = Path("/proc/self/maps")  # proc_pid_maps(5): address, rights, offset, device, inode, path
_READ_AND_SHARED: Final = b"r--s"


class MappedFile(NamedTuple):
    """Where a file is mapped in this process for reading only, in bytes; gone as soon as that is unmapped."""

    start: int
    length: int

    @classmethod
    def find(cls, path: Path) -> Self | None:
        """The mapping of a file, by its real path; None where there is none, or the system does not tell."""
        wanted = os.fsencode(os.path.realpath(path))
        try:
            lines = _MAPS.read_bytes().splitlines()
        except OSError:
            return None
        for line in lines:
            fields = line.split(None, 5)
            if len(fields) == 6 and fields[5] == wanted and fields[1] == _READ_AND_SHARED:
                start, end = (int(address, 16) for address in fields[0].split(b"-"))
                return cls(start, end - start)
        return None

    def let_go(self) -> None:
        """Give back all pages; those that are read again come from the page cache.

        Harmless to whoever reads at the same time: of a shared mapping of a file nothing is lost (madvise(2)).
        """
        _madvise()(self.start, self.length, mmap.MADV_DONTNEED)


@cache
def _madvise() -> Any:  # noqa: ANN401 - a function of the C library
    call = ctypes.CDLL(None).madvise
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return call
