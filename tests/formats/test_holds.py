"""The independent reader and repositories with snapshots that are held."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.repository.format import drop_name, hold_name
from backstay.repository.repository import Repository
from backstay.storage.local import LocalStorage
from backstay.trust.secrets import Secret
from tests.operations.copies import SMALL_PACKS, back_up, make_source
from tools import dumb_verifier


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A repository whose first snapshot is held and was dropped at the same time, and whose second is held no more."""
    secret = Secret.new_keyfile()
    (tmp_path / "key").write_text(secret.printed())
    source = make_source(tmp_path / "source", files=6)
    store = LocalStorage(tmp_path / "repository")
    with Repository.create(store, secret, environment=SMALL_PACKS) as repository:
        first, second = back_up(repository, source), back_up(repository, source)
        snapshots, clock = repository.snapshots, repository.clock
        snapshots.drop(first, "", clock)
        drop = store.retrieve(drop_name(first))
        store.delete(drop_name(first))
        snapshots._dropped.clear()
        snapshots.hold(first, "case 7", clock)
        snapshots.hold(second, "", clock)
        snapshots.release(second, "", clock)
        store.store(drop_name(first), drop)
        assert [manifest.id for manifest in snapshots.live()] == sorted([first, second])
    return tmp_path


def verdict(place: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    status = dumb_verifier.main([str(place / "repository"), "--key-file", str(place / "key")])
    return status, capsys.readouterr().out


def test_it_reads_them(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, told = verdict(place, capsys)
    assert status == 0, told


def test_what_is_held_is_checked_although_it_was_dropped(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = LocalStorage(place / "repository")
    (dropped,) = (info.name.removeprefix("drops/") for info in store.list("drops/"))
    name = f"snapshots/{dropped}"
    store.store(name, store.retrieve(name)[:-1], overwrite=True)
    status, told = verdict(place, capsys)
    assert status != 0
    assert name in told


def test_it_finds_a_hold_under_another_name(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = LocalStorage(place / "repository")
    name = min(info.name for info in store.list("holds/"))
    ulid = name[6:32]
    store.store(hold_name(ulid, 9), store.retrieve(name))
    store.store("holds/stray", b"")
    status, told = verdict(place, capsys)
    assert status != 0
    assert "something else" in told
    assert "holds/stray" in told
