"""What this process has open: tests of one thing share it with servers and workers of others."""

from __future__ import annotations

from pathlib import Path


def open_files() -> set[tuple[str, str]]:
    """(number, what it leads to) of each open descriptor. Others close some of theirs at any time: compare by `<=`."""
    found: set[tuple[str, str]] = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add((entry.name, str(entry.readlink())))
        except FileNotFoundError:  # of the listing itself, or closed meanwhile
            continue
    return found
