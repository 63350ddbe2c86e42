"""Which values the snapshots of graphs keep: their lists are read exactly, and a damaged one is never a short one."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import pytest

from backstay.errors import CorruptedBackup
from backstay.repository.repository import Environment, Repository
from backstay.repository.values import references
from backstay.repository.values.references import ValueReferences, named_values
from backstay.storage.memory import MemoryStorage
from backstay.testing import FakeClock
from backstay.trust.secrets import Secret
from tests.repository.referring import refer, refer_by

ONE, TWO, THREE = (sha256(value).digest() for value in (b"1", b"2", b"3"))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def repository(clock: FakeClock) -> Iterator[Repository]:
    environment = Environment(clock=clock, threads=1)
    with Repository.create(MemoryStorage(), Secret("keyfile", bytes(32)), environment=environment) as repository:
        yield repository


def test_the_values_of_a_list_are_named_and_no_others(repository: Repository) -> None:
    manifest = refer(repository, [b"2", b"1"])
    assert set(named_values(repository, manifest)) == {ONE, TWO}
    assert set(named_values(repository, refer(repository, []))) == set()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (ONE.hex().encode(), "cut short"),
        (b"\n", "no SHA-256"),
        (ONE.hex().upper().encode() + b"\n", "no SHA-256"),
        (ONE.hex().encode() + b"\r\n", "no SHA-256"),
        (b"\xff" * 64 + b"\n", "no SHA-256"),
        (b"0" * 65, "no SHA-256"),
    ],
    ids=["cut", "empty line", "capitals", "other ends", "no text", "too long"],
)
def test_a_list_that_is_malformed_is_damage(repository: Repository, text: bytes, told: str) -> None:
    manifest = refer_by(repository, {b"values.txt": text})
    with pytest.raises(CorruptedBackup, match="does not say which values it needs") as refused:
        list(named_values(repository, manifest))
    assert told in str(refused.value.cause)
    with pytest.raises(CorruptedBackup):
        ValueReferences(repository).naming([THREE])


def test_a_snapshot_of_a_graph_without_a_list_is_damage(repository: Repository) -> None:
    manifest = refer_by(repository, {b"other.txt": b""})
    with pytest.raises(CorruptedBackup) as refused:
        list(named_values(repository, manifest))
    assert "no values.txt" in str(refused.value.cause)


def test_a_value_is_told_with_the_first_snapshot_that_names_it(repository: Repository, clock: FakeClock) -> None:
    first = refer(repository, [b"1", b"2"])
    clock.advance(1)
    second = refer(repository, [b"2", b"3"], graph="other")
    found = ValueReferences(repository).naming([ONE, TWO, THREE, b"\0" * 32])
    assert found == {ONE: first.id, TWO: first.id, THREE: second.id}
    assert ValueReferences(repository).naming([]) == {}


def test_a_snapshot_that_is_marked_as_deleted_keeps_no_values(repository: Repository, clock: FakeClock) -> None:
    known = ValueReferences(repository)
    first = refer(repository, [b"1", b"2"])
    clock.advance(1)
    second = refer(repository, [b"2"], graph="other")
    assert known.naming([ONE, TWO]) == {ONE: first.id, TWO: first.id}
    repository.snapshots.graph_deletions.mark(first.id, "test", repository.clock)
    assert known.naming([ONE, TWO]) == {TWO: second.id}
    repository.snapshots.graph_deletions.unmark(first.id)
    assert known.naming([ONE]) == {ONE: first.id}


def test_lists_that_are_forgotten_for_lack_of_room_are_read_again(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "_CACHED", 250)
    known = ValueReferences(repository)
    made = [refer(repository, [b"%d" % at, b"x%d" % at], graph=f"g{at}").id for at in range(4)]
    wanted = [sha256(b"%d" % at).digest() for at in range(4)]
    for _ in range(2):
        assert known.naming(wanted) == dict(zip(wanted, made, strict=True))
    assert len(known._lists) == 1
