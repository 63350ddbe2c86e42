"""Remote stores as the program opens them: behind all wrappers, and beside copies that are out of reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.errors import StorageUnavailable
from backstay.repository.repository import Repository
from backstay.storage.assembly import StorageSettings, assemble
from backstay.storage.backend import StorageBackend
from backstay.testing import FakeClock
from tests.operations.copies import SECRET, SMALL_PACKS, back_up, contents, make_source, open_alone, restored
from tests.storage.remote.processes import free_port

SCHEMES = ("webdav", "sftp")


def nowhere(scheme: str) -> str:
    """An address where nobody answers."""
    return f"{scheme}://127.0.0.1:{free_port()}/repository"


def mirrored(first: str, second: str, warnings: list[str], *, quorum: int | None = 1) -> StorageBackend:
    settings = StorageSettings(mirrors=(second,), quorum=quorum)
    return assemble(first, settings, create=False, clock=FakeClock(), warn=warnings.append)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_source(tmp_path / "source", files=5)


@pytest.fixture
def here(tmp_path: Path) -> str:
    """A repository on this machine."""
    place = str(tmp_path / "here")
    Repository.create(assemble(place), SECRET, environment=SMALL_PACKS).close()
    return place


@pytest.mark.parametrize("scheme", SCHEMES)
def test_backups_go_on_without_a_copy_that_the_quorum_does_not_need(
    here: str, source: Path, tmp_path: Path, scheme: str
) -> None:
    warnings: list[str] = []
    copy = nowhere(scheme)
    with open_alone(mirrored(here, copy, warnings)) as repository:
        made = back_up(repository, source)
        assert restored(repository, made, tmp_path / "out", source) == (contents(source), [])
    assert f"the copy {copy} is left behind" in " ".join(warnings)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_backups_stop_without_a_copy_that_the_quorum_needs(here: str, source: Path, scheme: str) -> None:
    with (
        open_alone(mirrored(here, nowhere(scheme), [], quorum=None)) as repository,
        pytest.raises(StorageUnavailable, match="in 1 of 2 copies"),
    ):
        back_up(repository, source)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_restores_need_no_first_copy(here: str, source: Path, tmp_path: Path, scheme: str) -> None:
    with open_alone(assemble(here)) as repository:
        made = back_up(repository, source)
    with open_alone(mirrored(nowhere(scheme), here, [])) as repository:
        assert restored(repository, made, tmp_path / "out", source) == (contents(source), [])
