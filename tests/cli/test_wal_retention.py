"""`prune` and `pg expire` on repositories with WAL: what they tell, and what they leave."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest

from backstay.errors import RestoreFailed
from backstay.operations.clusters import restore as pg_restore
from backstay.repository.readers import announced, running_readers
from backstay.repository.repository import Repository
from backstay.storage.local import LocalStorage
from backstay.trust.secrets import Secret
from tests.cli.conftest import Account
from tests.operations.bases import NAME, make_base, store_wal, wal_file
from tests.postgres.made_wal import SYSTEM


@contextmanager
def opened(account: Account) -> Iterator[Repository]:
    secret = Secret.parse_keyfile(account.key_file.read_text())
    with Repository.open(LocalStorage(account.repository), secret) as repository:
        yield repository


@pytest.fixture
def clusters(account: Account) -> Account:
    """A repository with two base backups of a cluster and the WAL from before the first to behind the second."""
    (account.documents / "note").write_text("a note\n")
    account.run("init")
    with opened(account) as repository:
        store_wal(repository, range(1, 8))
        make_base(repository, account.documents, 3)
        make_base(repository, account.documents, 6)
    return account


def left(account: Account) -> list[str]:
    with opened(account) as repository:
        return list(repository.wal.files(SYSTEM))


def test_expiry_tells_from_where_on_wal_stays_on_the_way_to_each_timeline(clusters: Account) -> None:
    with opened(clusters) as repository:
        repository.wal.store(SYSTEM, "00000002.history", b"1\t0/200000\tbefore\n")
        store_wal(repository, range(2, 7), timeline=2)
        make_base(repository, clusters.documents, 5, timeline=2)
    told = clusters.run("pg", "expire", "--name", NAME, "--dry-run").out
    assert "no recovery needs what lies before 0/300064 on the way to timeline 1, where base backup " in told
    assert "; or before 0/500064 on the way to timeline 2, where base backup " in told
    assert "all from 0/300064 on the way to timeline 1 and from 0/500064 on the way to timeline 2 on, " in told


def test_prune_tells_which_wal_goes_and_why(clusters: Account) -> None:
    before = left(clusters)
    told = clusters.run("prune", "--keep-last", 1, "--dry-run").out
    assert f"WAL of {NAME} (cluster {SYSTEM})" in told
    assert f"drop  5 segments, {wal_file(1)} to {wal_file(5)}: no recovery needs what lies before 0/600064" in told
    assert "5 WAL segments would be removed" in told
    assert left(clusters) == before
    done = clusters.json("prune", "--keep-last", 1)
    assert done["wal"][0]["removed"] == 5
    assert done["wal"][0]["system"] == str(SYSTEM)
    assert left(clusters) == before[5:]
    assert "0 WAL segments removed" in clusters.run("prune", "--keep-last", 1).out


def test_where_a_history_is_damaged_prune_and_expiry_say_that_all_of_the_cluster_stays(clusters: Account) -> None:
    with opened(clusters) as repository:
        repository.wal.store(SYSTEM, "00000002.history", b"1\t0/200000\tbefore\n")
        store_wal(repository, [2], timeline=2)
    before = left(clusters)
    (history,) = clusters.repository.rglob("*00000002.history")
    history.chmod(0o600)
    history.write_bytes(b"damaged")
    for command in (["prune", "--keep-last", 1], ["pg", "expire", "--name", NAME]):
        result = clusters.run(*command)
        assert f"no WAL of {NAME} is removed, it cannot be told what is needed: " in result.err
        assert "keep  8 segments: it cannot be told what is needed: " in result.out
    assert left(clusters) == before


def test_wal_is_left_for_a_running_restore_and_the_user_is_told(clusters: Account) -> None:
    with opened(clusters) as repository, announced(repository, warn=pytest.fail):
        done = clusters.run("prune", "--keep-last", 1)
        assert "warning: WAL was left for a restore that runs (process " in done.err
        assert "0 WAL segments removed" in done.out
    assert len(left(clusters)) == 7


def test_a_restore_announces_itself_before_it_plans(clusters: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def restore(repository: Repository, *_: Any, **__: Any) -> NoReturn:
        seen.append(len(running_readers(repository)))
        raise RestoreFailed("far enough")

    monkeypatch.setattr(pg_restore, "restore_cluster", restore)
    clusters.run("pg", "restore", "--name", NAME, "--to", clusters.root / "data", status=RestoreFailed.exit_status)
    assert seen == [1]
    with opened(clusters) as repository:
        assert running_readers(repository) == []


def test_wal_of_an_abandoned_cluster_is_removed_on_demand_only(clusters: Account) -> None:
    clusters.run("pg", "expire", "--name", NAME, "--all", status=2)
    clusters.run("delete", *(snapshot["id"] for snapshot in clusters.json("list")))
    told = clusters.run("prune", "--keep-last", 1).out
    assert f"`backstay pg expire --name {NAME} --all` removes it" in told
    assert len(left(clusters)) == 7
    clusters.run("pg", "expire", "--name", NAME, "--all", "--window", "1d", status=2)
    assert "7 WAL segments removed" in clusters.run("pg", "expire", "--name", NAME, "--all").out
    assert left(clusters) == []
