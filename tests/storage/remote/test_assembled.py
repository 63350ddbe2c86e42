"""Remote stores as the program opens them: behind all wrappers, and beside copies that are out of reach."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from backstay.cli.main import run
from backstay.errors import NoRepository, StorageMissing, StorageUnavailable
from backstay.repository.repository import Repository
from backstay.storage.assembly import StorageSettings, assemble
from backstay.storage.backend import StorageBackend
from backstay.testing import FakeClock
from tests.operations.copies import SECRET, SMALL_PACKS, back_up, contents, make_source, open_alone, restored
from tests.ports import free_port
from tests.storage.remote.conftest import Keys, write_netrc
from tests.storage.remote.sftp_server import SftpServer, address, trust
from tests.storage.remote.test_webdav import PASSWORD, USER, rclone_server

SCHEMES = ("webdav", "sftp")


def nowhere(scheme: str) -> str:
    """An address where nobody answers."""
    return f"{scheme}://127.0.0.1:{free_port()}/repository"


def mirrored(first: str, second: str, warnings: list[str], *, quorum: int | None = 1) -> StorageBackend:
    settings = StorageSettings(mirrors=(second,), quorum=quorum)
    return assemble(first, settings, create=False, clock=FakeClock(), warn=warnings.append)


@dataclass(frozen=True)
class Served:
    """A server, and what a repository's address there is."""

    url: str
    files: Path

    def made(self) -> list[str]:
        return sorted(path.relative_to(self.files).as_posix() for path in self.files.rglob("*"))


@pytest.fixture(params=SCHEMES)
def served(request: pytest.FixtureRequest, tmp_path: Path, keys: Keys, trusted: Path) -> Iterator[Served]:
    """Servers that show what they can do only when it is tried: WebDAV, and SFTP without hard links."""
    files = tmp_path / "files"
    files.mkdir()
    if request.param == "webdav":
        write_netrc(trusted, USER, PASSWORD)
        running = rclone_server(files, "--dir-cache-time=1ms").start()
        yield Served(f"webdav://127.0.0.1:{running.port}/made/repository", files)
        running.stop()
    else:
        server = SftpServer(files, keys.host, keys.directory / "authorized_keys").start()
        server.behaviour.links = False
        trust(trusted, keys, server.port)
        yield Served(address(server.port), files)
        server.stop()


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


# --- places that are not there ---


def test_what_is_opened_is_not_made(served: Served) -> None:
    with assemble(served.url, create=False, clock=FakeClock()) as backend:
        with pytest.raises(NoRepository):
            Repository.open(backend, SECRET)
        with pytest.raises(StorageMissing):
            backend.retrieve("repo.json")
        with pytest.raises(StorageMissing):
            [*backend.list()]
    assert served.made() == []


@pytest.mark.parametrize("served", ["webdav"], indirect=True)
def test_only_init_makes_the_directory(served: Served, trusted: Path, source: Path, tmp_path: Path) -> None:
    def backstay(*words: object) -> int:
        environ = {"HOME": str(trusted), "BACKSTAY_PASSWORD": "a password of some length"}
        return run(["-r", served.url, *map(str, words)], environ)

    for words in (["list"], ["backup", source], ["restore", "latest", "--to", tmp_path / "out"], ["verify"], ["gc"]):
        assert backstay(*words) != 0
        assert served.made() == [], words
    assert backstay("init") == 0
    assert (served.files / "made/repository/repo.json").is_file()


def test_a_first_copy_that_is_gone_is_not_made_again(served: Served, here: str, source: Path) -> None:
    with (
        open_alone(mirrored(served.url, here, [])) as repository,
        pytest.raises(StorageUnavailable, match="nothing is written"),
    ):
        back_up(repository, source)
    assert served.made() == []


def test_a_copy_that_is_gone_is_not_made_again(served: Served, here: str, source: Path) -> None:
    with open_alone(mirrored(here, served.url, [])) as repository:
        back_up(repository, source)
    assert served.made() == []
