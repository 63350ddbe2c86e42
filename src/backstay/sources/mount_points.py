"""Which file systems are mounted where: what no directory tells of (proc(5), mountinfo)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from backstay.sources.kernel import filesystem_type

MOUNTS: Final = Path("/proc/self/mountinfo")
_PLACE: Final = 4  # field of a line: where it is mounted
_ESCAPED: Final = re.compile(rb"\\([0-7]{3})")

# Others can change what lies there without this kernel's knowing. Numbers: linux/magic.h, the sources of the file
# systems, and for those outside of Linux the table of coreutils' stat(1).
SHARED: Final = frozenset(
    {
        0x6969,  # NFS
        0x517B,  # SMB
        0xFE534D42,  # SMB 2
        0xFF534D42,  # CIFS
        0x65735546,  # FUSE
        0x01021997,  # 9P
        0x00C36400,  # Ceph
        0x5346414F,  # AFS
        0x6B414653,  # AFS of the kernel
        0x73757245,  # Coda
        0x7461636F,  # OCFS2
        0x19830326,  # BeeGFS
        0x20030528,  # OrangeFS
        0xAAD7AAEA,  # PanFS
        0x786F4256,  # VirtualBox
        0xBACBACBC,  # VMware
        0x7C7C6673,  # Parallels
        0x47504653,  # GPFS
        0x0BD00BD0,  # Lustre
        0x01161970,  # GFS2
    }
)


def is_shared(fd: int, *, kind: Callable[[int], int] = filesystem_type) -> bool:
    """Whether an open directory lies on a file system that others can change unseen. Raises OSError."""
    return kind(fd) in SHARED


def mounts_below(places: tuple[bytes, ...], mounts: Path = MOUNTS) -> tuple[bytes, ...]:
    """The mounts at, below and above some absolute places, as lines of the kernel. Raises OSError."""
    lines = mounts.read_bytes().splitlines()
    return tuple(line for line in lines if any(_touch(_place(line), place) for place in places))


def mounted_within(place: bytes, mounts: Path = MOUNTS) -> list[bytes]:
    """The places of mounts at and below an absolute one. Raises OSError."""
    below = place.rstrip(b"/") + b"/"
    found = map(_place, mounts.read_bytes().splitlines())
    return [mounted for mounted in found if (mounted.rstrip(b"/") + b"/").startswith(below)]


def mounted_in(mounts: tuple[bytes, ...]) -> dict[bytes, list[bytes]]:
    """The places at which these lines tell of mounts, by the directories that they lie in."""
    found: dict[bytes, list[bytes]] = {}
    for place in map(_place, mounts):
        found.setdefault(place.rpartition(b"/")[0] or b"/", []).append(place)
    return found


def _place(line: bytes) -> bytes:
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), line.split(b" ")[_PLACE])


def _touch(one: bytes, other: bytes) -> bool:
    one, other = one.rstrip(b"/") + b"/", other.rstrip(b"/") + b"/"
    return one.startswith(other) or other.startswith(one)
