"""Steps of a scan in portions that are worth a reader's while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from backstay.operations.backup.scan import Kept, Page, Step, Take

WHOLE: Final = 4 << 20  # files up to this many bytes are read and cut by one reader in one go
BATCH_FILES: Final = 128  # captures in one batch
BATCH_BYTES: Final = 1 << 20  # of files that are read whole
BATCH_ROWS: Final = 8192  # entries of directories, which take more memory than the steps


@dataclass(slots=True, eq=False)
class Batch:
    """Steps in order, with the captures among them."""

    steps: list[Step] = field(default_factory=list)
    takes: list[Take] = field(default_factory=list)
    bytes: int = 0
    rows: int = 0

    def add(self, step: Step) -> None:
        self.steps.append(step)
        if isinstance(step, Page):
            self.rows += len(step.rows)
        if isinstance(step, Kept):
            self.bytes += len(step.part.frames)
        if isinstance(step, Take):
            self.takes.append(step)
            self.bytes += min(step.entry[2], WHOLE)

    def is_full(self) -> bool:
        enough = len(self.takes) >= BATCH_FILES or self.bytes >= BATCH_BYTES
        return enough or self.rows >= BATCH_ROWS or len(self.steps) >= 4 * BATCH_FILES

    def weight(self) -> int:
        return self.bytes + (64 << 10)  # so that very many empty files do not run far ahead

    def is_empty(self) -> bool:
        return not self.takes


def batched(steps: Iterable[Step]) -> Iterator[Batch]:
    """Group steps so that each batch is worth a thread's while."""
    batch = Batch()
    for step in steps:
        batch.add(step)
        if batch.is_full():
            yield batch
            batch = Batch()
    yield batch
