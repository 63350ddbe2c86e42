"""What a process does to make files durable, in order: what a docstring says of a crash is seen by that."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

_ONE: tuple[str, ...] = ("fsync", "fdatasync", "unlink", "remove")
_TWO: tuple[str, ...] = ("rename", "replace", "link")


class Synced:
    """Notes these calls below a directory from now on, and what each file held when it was synced last."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.calls: list[str] = []  # such as "fsync a", "rename a b"; "fsync ." is of the directory itself
        self.contents: dict[str, bytes] = {}
        for name in (*_ONE, *_TWO):
            monkeypatch.setattr(os, name, self._noted(name, getattr(os, name)))

    def _noted(self, call: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **where: Any) -> Any:
            names = [self._name(arg, where) for arg in args[: 2 if call in _TWO else 1]]
            if None not in names:
                if call.endswith("sync"):
                    self._keep(args[0], str(names[0]))
                self.calls.append(" ".join([call, *map(str, names)]))
            return real(*args, **where)

        return noted

    def _name(self, what: Any, where: dict[str, Any]) -> str | None:
        """Below the directory; None elsewhere."""
        if isinstance(what, int):
            path = Path(f"/proc/self/fd/{what}").readlink()
        else:
            place = where.get("dir_fd")
            path = Path(f"/proc/self/fd/{place}").readlink() if place is not None else Path()
            path = (path / os.fsdecode(what)).absolute()
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else None

    def _keep(self, descriptor: int, name: str) -> None:
        path = self.root / name
        if path.is_file():
            self.contents[name] = path.read_bytes()
