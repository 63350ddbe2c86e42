"""Whether what a disk does not give ends everything, or is passed by like what is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from backstay.errors import CorruptedBackup, ObjectUnreadable


@dataclass(slots=True)
class Tolerance:
    """Of one repository. Not for those who decide what is lost for good: the disk may give it again."""

    unreadable: bool = False

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Within, an unreadable object is as good as damaged."""
        before, self.unreadable = self.unreadable, True
        try:
            yield
        finally:
            self.unreadable = before

    def judge(self, error: ObjectUnreadable) -> None:
        """Raises CorruptedBackup for who goes on with the rest."""
        if self.unreadable:
            raise CorruptedBackup.of_unreadable(error) from error
