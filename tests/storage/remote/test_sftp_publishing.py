"""How an object gets its name on an SFTP server: links that seem to fail, and claims that somebody left."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from backstay.core.clock import SystemClock
from backstay.errors import ObjectExists, StorageUnavailable
from backstay.storage.retrying import Retrying, RetryPolicy
from backstay.storage.sftp import SftpStorage
from tests.storage.remote.sftp_server import SftpServer, files_of, make_older

DATA = bytes(range(256)) * 40


@pytest.mark.parametrize("number", [errno.EEXIST, errno.EIO])
@pytest.mark.parametrize("method", ["link", "rename"])
def test_what_took_effect_although_the_server_says_that_it_failed_is_stored(
    method: str, number: int, server: SftpServer, store: SftpStorage, files: Path
) -> None:
    server.behaviour.links = method == "link"

    def fail(_: str) -> None:
        raise OSError(number, os.strerror(number))

    server.behaviour.done[method] = fail
    store.store("a", DATA)
    server.behaviour.done.clear()
    assert files_of(files) == ["made/repository/a"]
    assert store.retrieve("a") == DATA


@pytest.mark.parametrize("links", [True, False])
def test_an_object_of_the_same_bytes_is_another_ones(
    links: bool, server: SftpServer, store: SftpStorage, files: Path
) -> None:
    server.behaviour.links = links
    store.store("a", DATA)
    with pytest.raises(ObjectExists):
        store.store("a", DATA)
    assert files_of(files) == ["made/repository/a"]


@pytest.fixture
def claim(server: SftpServer, store: SftpStorage, files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The claim that another writer has just made to the name `a`; it is waited for for a moment only."""
    monkeypatch.setattr("backstay.storage.sftp_claims._STEPS", 3)
    monkeypatch.setattr("backstay.storage.sftp_claims._LOOK", 1)
    server.behaviour.links = False
    store.store("first", DATA)
    path = files / "made/repository" / f".tmp-claim-{hashlib.sha256(b'a').hexdigest()}"
    path.touch()
    return path


def test_a_claim_that_may_be_held_still_is_waited_for(store: SftpStorage, claim: Path) -> None:
    make_older(claim, 290)
    with pytest.raises(StorageUnavailable) as caught:
        store.store("a", DATA)
    assert "another writer" in caught.value.cause
    assert not store.exists("a")
    claim.unlink()
    store.store("a", DATA)


def test_the_claim_of_a_dead_writer_is_taken_over(store: SftpStorage, claim: Path, files: Path) -> None:
    make_older(claim, 310)
    store.store("a", DATA)
    assert files_of(files) == ["made/repository/a", "made/repository/first"]


def test_only_one_of_several_takes_a_dead_writers_claim(store: SftpStorage, claim: Path) -> None:
    make_older(claim, 310)
    claim.with_name(f"{claim.name}-2").touch()  # another one is about to
    with pytest.raises(StorageUnavailable):
        store.store("a", DATA)
    assert claim.exists()


@pytest.mark.parametrize("lost_in", ["rename", "remove"])
def test_a_claim_that_a_lost_connection_left_is_taken_over(
    lost_in: str, server: SftpServer, store: SftpStorage, files: Path
) -> None:
    server.behaviour.links = False
    store.store("first", DATA)
    server.behaviour.cut = {lost_in}
    with open_retrying(store) as patient:
        patient.store("a", DATA)
    assert server.behaviour.cut == set()
    with pytest.raises(ObjectExists):
        store.store("a", b"other")
    assert [name for name in files_of(files) if "claim" in name] == []
    assert store.retrieve("a") == DATA


def open_retrying(store: SftpStorage) -> Retrying:
    return Retrying(store, policy=RetryPolicy(first_s=0.01), clock=SystemClock())


def test_who_holds_a_claim_for_too_long_gives_up(
    server: SftpServer, store: SftpStorage, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.behaviour.links = False
    store.store("first", DATA)
    monkeypatch.setattr("backstay.storage.sftp_claims._HELD_S", 0)
    with pytest.raises(StorageUnavailable, match="did not answer in time"):
        store.store("a", DATA)
    assert any("claim" in name for name in files_of(files)), "it may be somebody else's by now"
    assert not store.exists("a")
