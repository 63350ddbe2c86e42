"""Files that lie on the disk are read ahead of time; those that lie in memory are not asked for twice."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from backstay.codec.chunker import FILES
from backstay.operations.backup import capture_process
from backstay.operations.backup.capture_process import Answer, Settings, Wanted, answering
from backstay.sources import disk_reads
from backstay.sources.disk_reads import DiskReads, read_soon
from backstay.sources.entry_reader import EntryReader, row_of
from backstay.sources.metadata import Volume
from backstay.sources.source import Capture, Stat
from tests.descriptors import open_files


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the kernel says that was read from disks."""
    counted = [0]
    monkeypatch.setattr(disk_reads, "blocks_read", lambda: counted[0])
    return counted


def rows(place: Path) -> list[Stat]:
    return sorted(row_of(os.fsencode(path.name), path.lstat()) for path in place.iterdir())


def test_regular_files_with_data_are_asked_for_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "gone"):
        (tmp_path / name).write_bytes(b"data")
    (tmp_path / "empty").touch()
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("a")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "now a fifo").write_bytes(b"data")
    listed = rows(tmp_path)
    (tmp_path / "gone").unlink()
    (tmp_path / "now a fifo").unlink()
    os.mkfifo(tmp_path / "now a fifo")
    asked: list[str] = []

    def note(fd: int, offset: int, length: int, advice: int) -> None:
        assert (offset, length, advice) == (0, 0, os.POSIX_FADV_WILLNEED)
        asked.append(Path(f"/proc/self/fd/{fd}").readlink().name)

    monkeypatch.setattr(os, "posix_fadvise", note)
    fd = os.open(tmp_path, os.O_RDONLY)
    before = open_files()
    try:
        read_soon(fd, listed)
        assert open_files() <= before
    finally:
        os.close(fd)
    assert sorted(asked) == ["a", "b", "now a fifo"]


def test_what_took_the_place_of_a_file_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"data")
    listed = rows(tmp_path)
    (tmp_path / "a").unlink()
    os.mkfifo(tmp_path / "a")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        read_soon(fd, listed)  # a FIFO refuses advice: ESPIPE
    finally:
        os.close(fd)


def test_reads_are_many_when_there_is_more_than_a_block_for_each_file(counter: list[int]) -> None:
    reads = DiskReads()
    assert not reads.were_many
    for more, many in ((0, False), (9, True), (8, False), (9, True), (0, False)):
        with reads.watched(8):
            counter[0] += more
        assert reads.were_many is many


def test_requests_are_read_ahead_once_the_disk_was_needed(
    tmp_path: Path, counter: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        (tmp_path / str(number)).write_bytes(b"data %d" % number)
    ahead: list[list[bytes]] = []

    def note(fd: int, entries: list[Stat]) -> None:
        ahead.append([name for name, *_ in entries])
        if len(ahead) < 2:
            counter[0] += 8  # the disk is at it still

    monkeypatch.setattr(capture_process, "read_soon", note)
    settings = Settings(b"k" * 32, FILES, 7, small=4096, room=8192)
    handler = answering(msgspec.msgpack.encode(settings))
    request = msgspec.msgpack.encode([Wanted(bytes(tmp_path), Volume(b"/", coarse=False), rows(tmp_path))])
    room = memoryview(bytearray(8192))
    fd = os.open(tmp_path, os.O_RDONLY)
    capture, costs = EntryReader.capture, iter([0, 8, 0, 0, 0])

    def from_disk(self: EntryReader, entry: Stat, *, small: int) -> Capture:
        if entry[0] == b"0":
            counter[0] += next(costs)
        return capture(self, entry, small=small)

    monkeypatch.setattr(EntryReader, "capture", from_disk)
    answers = []
    try:
        for _ in range(5):
            prepared = handler.prepare(memoryview(request), [fd])
            answers.append(msgspec.msgpack.decode(handler.answer(prepared, [fd], room), type=Answer))
    finally:
        os.close(fd)
    # The second request met the disk: the third and, since that was still read ahead, the fourth were asked for.
    assert ahead == [[b"0", b"1", b"2"]] * 2
    assert all(answer == answers[0] for answer in answers)
