"""Steps of a scan in portions that are worth a reader's while."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from backstay.operations.backup.scan import Kept, Left, Page, Step, Take

WHOLE: Final = 4 << 20  # files up to this many bytes are read and cut by one reader in one go
BATCH_FILES: Final = 128  # captures in one batch
BATCH_BYTES: Final = 1 << 20  # of files that are read whole
BATCH_ROWS: Final = 8192  # entries of directories, which take more memory than the steps


@dataclass(slots=True, eq=False)
class Batch:
    """Steps in order, with the captures among them: those of large files, and all others."""

    steps: list[Step] = field(default_factory=list)
    small: list[Take] = field(default_factory=list)
    large: list[Take] = field(default_factory=list)
    bytes: int = 0
    rows: int = 0
    ended: int = 0  # directories, which are open until the batch was consumed

    def add(self, step: Step) -> None:
        self.steps.append(step)
        if isinstance(step, Take):  # nearly all, when there is much to do
            size = step.entry[2]
            (self.small if size <= WHOLE else self.large).append(step)
            self.bytes += min(size, WHOLE)
        elif isinstance(step, Page):
            self.rows += len(step.rows)
        elif isinstance(step, Kept):
            self.bytes += len(step.part.frames)
        elif isinstance(step, Left):
            self.ended += 1

    @property
    def captures(self) -> int:
        return len(self.small) + len(self.large)

    def is_full(self) -> bool:
        enough = self.bytes >= BATCH_BYTES or self.captures >= BATCH_FILES
        return enough or self.rows >= BATCH_ROWS or len(self.steps) >= 4 * BATCH_FILES

    def weight(self) -> int:
        return self.bytes + (64 << 10)  # so that very many empty files do not run far ahead

    def weighs_nothing(self) -> bool:
        """Whether any number of such may wait behind one that takes its time."""
        return not self.captures and not self.ended


def batched(steps: Iterable[Step], *, most_ended: int) -> Iterator[Batch]:
    """Group steps so that each batch is worth a thread's while, and no more directories than that end in one."""
    batch = Batch()
    for step in steps:
        batch.add(step)
        if batch.is_full() or batch.ended >= most_ended:
            yield batch
            batch = Batch()
    yield batch
