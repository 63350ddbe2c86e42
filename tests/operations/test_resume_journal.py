"""What a journal of an unfinished backup says is believed only as it was written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backstay.operations.backup.resume import ResumeJournal, journal_entry
from backstay.repository.nodes import Content, Node
from backstay.sources.source import NEVER_SAME, Stat

KEY, OTHER_KEY = bytes(32), bytes([1]) * 32
FILES = range(3)


def stat(number: int) -> Stat:
    return b"f%d" % number, 0o100644, 5, 10**18, 10**18, number


def node(number: int) -> Node:
    return Node(b"f%d" % number, 0o100644, 0, 0, "root", "root", 5, 10**18, Content(0, bytes([number]) * 32), bytes(32))


@contextmanager
def opened(path: Path, key: bytes = KEY) -> Iterator[ResumeJournal]:
    journal = ResumeJournal(path, key, lambda _: True)
    try:
        yield journal
    finally:
        journal.close(discard=False)


def known_in(path: Path) -> list[int]:
    with opened(path) as journal:
        return known(journal)


def known(journal: ResumeJournal) -> list[int]:
    found = [journal.find(b"/f%d" % number, stat(number)) for number in FILES]
    assert all(item is None or item == node(number) for number, item in enumerate(found))
    return [number for number, item in enumerate(found) if item is not None]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "resume" / "journal"
    with opened(path) as journal:
        for number in FILES:  # a batch each
            journal.record([journal_entry(b"/f%d" % number, stat(number), node(number))])
    return path


def test_what_was_recorded_is_found(path: Path) -> None:
    assert known_in(path) == [0, 1, 2]


def test_all_of_a_batch_is_found(tmp_path: Path) -> None:
    with opened(tmp_path / "journal") as journal:
        journal.record([journal_entry(b"/f%d" % number, stat(number), node(number)) for number in FILES])
    assert known_in(tmp_path / "journal") == [0, 1, 2]


def test_any_flipped_bit_drops_its_batch_and_those_after_it(path: Path) -> None:
    whole = path.read_bytes()
    length = len(whole) // len(FILES)
    for at in range(length, 2 * length):
        for bit in (0, 7):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            path.write_bytes(damaged)
            assert known_in(path) == [0], at


def test_a_torn_end_is_dropped_and_what_is_recorded_then_is_found(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    with opened(path) as journal:
        assert known(journal) == [0, 1]
        journal.record([journal_entry(b"/f2", stat(2), node(2))])
    assert known_in(path) == [0, 1, 2]


def test_what_is_damaged_after_it_was_opened_is_not_believed(path: Path) -> None:
    with opened(path) as journal:
        data = bytearray(path.read_bytes())
        data[data.rindex(bytes([2]) * 32) + 31] ^= 1
        path.write_bytes(data)
        assert known(journal) == [0, 1]


def test_a_journal_under_another_key_is_not_believed(path: Path) -> None:
    with opened(path, OTHER_KEY) as journal:
        assert journal.empty


def test_a_file_that_is_to_be_read_again_is_not_recorded(path: Path) -> None:
    with opened(path) as journal:
        journal.record([journal_entry(b"/f2", (*stat(2)[:4], NEVER_SAME, 2), node(2))] * 2)
        journal.record([])
    assert known_in(path) == [0, 1, 2]
    assert journal_entry(b"/f9", (*stat(9)[:4], NEVER_SAME, 9), node(9)) == b""
