"""How much memory of this process the mappings of a file take."""

from __future__ import annotations

import os
from pathlib import Path


def resident(file: Path) -> int:
    """Bytes, of all mappings of the file (proc_pid_smaps(5))."""
    wanted, found, total = os.path.realpath(file), False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split(None, 1)[0]
        if not first.endswith(":"):  # the head of a mapping
            found = line.endswith(f" {wanted}")
        elif found and first == "Rss:":
            total += int(line.split()[1]) << 10
    return total
