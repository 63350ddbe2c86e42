"""One function makes the whole stack, in the right order."""

from __future__ import annotations

from pathlib import Path

import pytest

from backstay.errors import InvalidRequest, QuotaExceeded, StorageUnavailable
from backstay.storage import assembly
from backstay.storage.archive import Archive
from backstay.storage.assembly import StorageSettings, assemble, engines, local_places, meters
from backstay.storage.backend import StorageBackend
from backstay.storage.circuit import CircuitPolicy
from backstay.storage.limits import LimitPolicy, Limits
from backstay.storage.local import LocalStorage
from backstay.storage.memory import MemoryStorage
from backstay.storage.metered import Metered
from backstay.storage.mirrored import Mirrored
from backstay.storage.quota import Quota
from backstay.storage.read_ahead import ReadAhead
from backstay.storage.retrying import Retrying, RetryPolicy
from backstay.storage.wrapper import Wrapper
from backstay.testing import FakeClock, Fault, FaultyBackend
from backstay.testing.glacier import GlacierStorage


class Remote(FaultyBackend):
    """A store that is not at hand."""

    def __init__(self, url: str) -> None:
        super().__init__(MemoryStorage())
        self.place = url

    @property
    def url(self) -> str:
        return self.place


@pytest.fixture
def remotes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Remote]:
    """What addresses lead to that are no paths."""
    made: dict[str, Remote] = {}

    def open_far(url: str, *, create: bool) -> StorageBackend:
        return made.setdefault(url, Remote(url)) if "://" in url else LocalStorage(url, create=create)

    monkeypatch.setattr(assembly, "open_backend", open_far)
    return made


def layers(backend: StorageBackend) -> list[type[StorageBackend]]:
    """The types from the outside in, along the first copy."""
    found = [type(backend)]
    while not isinstance(backend, (Remote, LocalStorage, MemoryStorage)):
        backend = backend.inner if isinstance(backend, Wrapper) else backend.copies()[0]
        found.append(type(backend))
    return found


def test_a_local_directory_needs_nothing(tmp_path: Path) -> None:
    assert layers(assemble(str(tmp_path))) == [LocalStorage]
    assert layers(assemble("memory:assembly")) == [MemoryStorage]


def test_a_remote_store_is_retried_and_metered(remotes: dict[str, Remote]) -> None:
    assert layers(assemble("far://host/a")) == [Retrying, Metered, Remote]


def test_everything_together(remotes: dict[str, Remote], tmp_path: Path) -> None:
    settings = StorageSettings(
        mirrors=("far://host/b", str(tmp_path)), quorum=2, max_size=1000, limits=LimitPolicy(upload=1 << 20)
    )
    backend = assemble("far://host/a", settings, clock=FakeClock())
    assert layers(backend) == [Quota, Mirrored, Limits, Retrying, Metered, Remote]
    assert [engine.url for engine in engines(backend)] == ["far://host/a", "far://host/b", str(tmp_path)]
    assert local_places(backend) == [tmp_path]
    backend.store("packs/00/x", bytes(900))
    assert all(remote.exists("packs/00/x") for remote in remotes.values())
    with pytest.raises(QuotaExceeded):
        backend.store("packs/00/y", bytes(900))
    assert {url: meter.snapshot()["store"].bytes > 900 for url, meter in meters(backend).items()} == {
        "far://host/a": True,
        "far://host/b": False,
    }
    assert len(backend.copies()) == 3


def test_a_failure_is_repeated_and_seen_by_the_meter(remotes: dict[str, Remote]) -> None:
    backend = assemble("far://host/a", clock=FakeClock())
    remotes["far://host/a"].script(Fault(kind="error_after", operation="store"))
    backend.store("snapshots/x", b"manifest")
    figures = meters(backend)["far://host/a"].snapshot()
    assert figures["store"].errors == {"StorageUnavailable": 1, "ObjectExists": 1}


def test_what_an_engine_can_do_passes_through_all_wrappers(remotes: dict[str, Remote]) -> None:
    class Able(Remote):
        parallel = 4

        def refuses_damage(self, name: str) -> bool:
            return name == "probe/damaged"

        def archive(self) -> Archive:
            return GlacierStorage(clock=FakeClock()).archive()

    for host in "ab":
        remotes[f"far://{host}"] = Able(f"far://{host}")
    settings = StorageSettings(mirrors=("far://b",), max_size=1000, limits=LimitPolicy(concurrency=1))
    backend = assemble("far://a", settings, clock=FakeClock())
    assert layers(backend) == [Quota, Mirrored, ReadAhead, Limits, Retrying, Metered, Able]
    assert backend.parallel == 4
    assert backend.refuses_damage("probe/damaged")
    assert backend.archive() is not None


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("far://host/a", "far://host/b", True),
        ("far://me@host/a", "far://you@Host/a", True),
        ("far://host/a", "far://elsewhere/a", False),
        ("far://host:1/a", "far://host:2/a", False),
        ("s3://a?endpoint=https://one.example:9000", "s3://b/c?endpoint=https://one.example:9000/", True),
        ("s3://a?endpoint=https://one.example", "s3://a?endpoint=https://two.example", False),
        ("s3://a?endpoint=https://one.example:1", "s3://a?endpoint=https://one.example:2", False),
        ("s3://a", "s3://b", True),
        ("s3://a?region=eu-west-1", "s3://a?region=eu-north-1", False),
        ("az://a?account=one", "az://a?account=two", False),
        ("gs://a", "gs://b", True),
        ("gs://a", "s3://a", False),
    ],
)
def test_copies_on_one_server_share_what_is_known_of_it(
    remotes: dict[str, Remote], one: str, other: str, shared: bool
) -> None:
    policy = RetryPolicy(deadline_s=0, circuit=CircuitPolicy(failures=1))
    backend = assemble(one, StorageSettings(mirrors=(other,), retry=policy), clock=FakeClock())
    first, second = backend.copies()
    remotes[one].script(Fault(kind="error_before", operation="delete"))
    with pytest.raises(StorageUnavailable):
        first.delete("a")
    if shared:
        with pytest.raises(StorageUnavailable, match="is not asked"):
            second.delete("a")
    else:
        second.delete("a")


@pytest.mark.parametrize("other", ["far://host/b", "far://elsewhere/b"])
def test_a_copy_is_given_up_sooner_than_the_first_one_wherever_it_is(remotes: dict[str, Remote], other: str) -> None:
    policy = RetryPolicy(deadline_s=0, circuit=CircuitPolicy(failures=3))
    first, copy = assemble("far://host/a", StorageSettings(mirrors=(other,), retry=policy), clock=FakeClock()).copies()
    remotes[other].script(Fault(kind="error_before", operation="delete"))
    with pytest.raises(StorageUnavailable, match="did not answer"):
        copy.delete("a")
    with pytest.raises(StorageUnavailable, match="is not asked"):
        copy.delete("a")
    first.delete("a")


def test_a_quorum_without_copies_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest):
        assemble(str(tmp_path), StorageSettings(quorum=2))
