"""Reads packs and checks every chunk in them: on threads, and in processes when there are many."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from backstay.codec.compression import Buffer
from backstay.core import helper_process
from backstay.core.helper_process import HelperGone
from backstay.core.pipeline import Workers
from backstay.errors import CorruptedBackup, ObjectNotFound, ObjectUnreadable
from backstay.operations.verify.check_process import CheckProcess, Settings
from backstay.repository.checking.packs import Expected, check_pack
from backstay.repository.index.index import PackInfo
from backstay.repository.repository import Repository

MANY: Final = 8  # packs from which on processes are worth their start
PROCESSES: Final = min(2, os.cpu_count() or 1)
AHEAD: Final = 48 << 20  # bytes of packs under way

Problem: TypeAlias = CorruptedBackup | ObjectNotFound


@dataclass(frozen=True, slots=True)
class Checked:
    """One pack, and what is wrong with it."""

    expected: Expected
    error: Problem | None = None


@dataclass(slots=True, eq=False)
class _Checker:
    process: CheckProcess
    asked: deque[Expected] = field(default_factory=deque)


class PackChecks:
    """`warn` is told what a person may want to know."""

    def __init__(self, repository: Repository, *, warn: Callable[[str], None]) -> None:
        self._repository, self._warn = repository, warn
        self._backend = repository.backend

    def run(self, packs: Iterable[PackInfo]) -> Iterator[Checked]:
        """Each pack, in any order. Raises StorageUnavailable and others that say nothing about a pack."""
        left = {info.digest: Expected.of(info) for info in packs}
        # One more than compute at once: one of them waits for the store.
        threads = max(self._repository.environment.threads + 1, self._backend.parallel)
        with Workers(threads, "verify") as workers:
            if len(left) >= MANY and helper_process.is_supported():
                for checked in self._in_processes(list(left.values()), workers):
                    del left[checked.expected.digest]
                    yield checked
            yield from workers.ordered(self._check, left.values(), weigh=_size, limit=AHEAD)

    def _check(self, expected: Expected) -> Checked:
        """What was damaged on its way is whole the next time."""
        problem = self._problem(expected)
        if isinstance(problem, CorruptedBackup):
            self._backend.forget_reads()
            problem = self._problem(expected)
        return Checked(expected, problem)

    def _problem(self, expected: Expected) -> Problem | None:
        keyring = self._repository.keyring
        try:
            check_pack(self._whole(expected), expected, keyring.repository, keyring.chunk_ids, keyring.key)
        except (CorruptedBackup, ObjectNotFound) as error:
            return error
        except ObjectUnreadable as error:
            return CorruptedBackup.of_unreadable(error)
        return None

    def _whole(self, expected: Expected) -> Buffer:
        """A pack's bytes, as many as it should have: memory is not taken for what has grown in its place."""
        size = self._backend.stat(expected.name).size
        if size != expected.size:
            raise CorruptedBackup(f"{expected.name} was changed", cause=f"it has {size} bytes, not {expected.size}")
        return self._backend.retrieve(expected.name, start=0, length=size)

    # -- in processes

    def _in_processes(self, packs: Sequence[Expected], workers: Workers) -> Iterator[Checked]:
        """The packs, unless the processes go away before they have answered for all."""
        keyring = self._repository.keyring
        settings = Settings(keyring.repository, keyring.blob_keys())
        checkers: list[_Checker] = []
        try:
            checkers.extend(_Checker(CheckProcess(settings)) for _ in range(PROCESSES))
            for expected, file in self._files(packs, workers):
                if isinstance(file, int):
                    yield from self._hand_out(expected, file, checkers)
                else:
                    yield Checked(expected, file)
            for checker in checkers:
                while checker.asked:
                    yield self._answered(checker)
        except HelperGone as error:
            self._warn(f"a process that checks packs is gone, it goes on without it: {error}")
        finally:
            for checker in checkers:
                checker.process.close()

    def _hand_out(self, expected: Expected, file: int, checkers: list[_Checker]) -> Iterator[Checked]:
        """Give one pack to the checker whose turn it is, and take what it has answered before if it has no room."""
        checkers.append(checker := checkers.pop(0))
        try:
            while not checker.process.has_room:
                yield self._answered(checker)
            if checker.process.request(expected, file):
                checker.asked.append(expected)
                return
        finally:
            os.close(file)
        yield self._check(expected)

    def _answered(self, checker: _Checker) -> Checked:
        with checker.process.checked() as is_whole:
            expected = checker.asked.popleft()
        # Whatever is wrong is looked at again here: it may have happened on the way.
        return Checked(expected) if is_whole else self._check(expected)

    def _files(self, packs: Sequence[Expected], workers: Workers) -> Iterator[tuple[Expected, int | Problem]]:
        """Each pack as an open file, which the taker closes: that of the store, or one in memory."""
        if self._is_here(packs[0]):
            for expected in packs:
                try:
                    file = self._backend.open_file(expected.name)
                except ObjectNotFound as error:
                    yield expected, error
                    continue
                except ObjectUnreadable as error:
                    yield expected, CorruptedBackup.of_unreadable(error)
                    continue
                assert file is not None
                yield expected, file
            return
        retrieved = workers.ordered(self._retrieve, packs, weigh=_size, limit=AHEAD)
        for expected, data in zip(packs, retrieved, strict=True):
            yield expected, data if isinstance(data, (CorruptedBackup, ObjectNotFound)) else _in_memory(data)

    def _is_here(self, expected: Expected) -> bool:
        """Whether the objects of the store are files of this machine."""
        try:
            file = self._backend.open_file(expected.name)
        except (ObjectNotFound, ObjectUnreadable):
            return True
        if file is None:
            return False
        os.close(file)
        return True

    def _retrieve(self, expected: Expected) -> Buffer | Problem:
        try:
            return self._whole(expected)
        except (CorruptedBackup, ObjectNotFound) as error:
            return error
        except ObjectUnreadable as error:
            return CorruptedBackup.of_unreadable(error)


def _in_memory(data: Buffer) -> int:
    file = os.memfd_create("backstay-pack")
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(file, left) :]
    except BaseException:
        os.close(file)
        raise
    return file


def _size(expected: Expected) -> int:
    return expected.size
