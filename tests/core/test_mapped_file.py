"""What is mapped of a file takes memory as far as it was read, until it is let go of."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from backstay.core.mapped_file import MappedFile
from tests.mappings import resident

SIZE = 4 << 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a file"
    path.write_bytes(bytes(range(256)) * (SIZE // 256))
    return path


def test_what_was_let_go_takes_no_memory_and_reads_as_before(file: Path) -> None:
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as data:
        before = data[:]
        assert resident(file) == SIZE
        found = MappedFile.find(file)
        assert found is not None
        assert found.length == SIZE
        found.let_go()
        assert resident(file) == 0
        assert data[:] == before


def test_what_is_not_mapped_or_may_be_written_to_is_not_found(file: Path) -> None:
    assert MappedFile.find(file) is None
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0), mmap.mmap(opened.fileno(), 0, mmap.MAP_PRIVATE):
        assert MappedFile.find(file) is None
    assert MappedFile.find(file.with_name("gone")) is None


def test_a_link_leads_to_the_file(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ):
        assert MappedFile.find(link) == MappedFile.find(file) is not None


def test_a_system_that_does_not_tell_finds_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backstay.core.mapped_file._MAPS", file.with_name("no such file"))
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ):
        assert MappedFile.find(file) is None
