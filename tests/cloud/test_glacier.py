"""Archive classes of S3, on moto: it refuses what is frozen, and thaws when it is told to."""

from __future__ import annotations

import json
import logging
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from backstay.errors import InvalidRequest, ObjectFrozen, ObjectNotFound, StorageMissing, ThawPending
from backstay.operations.restore.run import RestoreOptions, plan_restore, run_restore
from backstay.operations.tiers.moving import plan_move, run_move, set_tier
from backstay.repository.repository import Environment, Repository
from backstay.storage.backend import StorageBackend
from backstay.storage.cloud_address import parse_address
from backstay.storage.memory import MemoryStorage
from backstay.storage.object_store import ObjectStorage
from backstay.testing import FakeClock
from tests.cloud.servers import CREDENTIALS
from tests.operations.copies import SECRET, back_up, contents, make_source

BUCKET = "frost"
ENVIRON = {**CREDENTIALS, "HOME": "/nonexistent"}


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """The endpoint of moto."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def archive(moto: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ObjectStorage]:
    """Opens an archive whose thaws are ready after so many looks."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    _call(moto, "/moto-api/reset", {})
    boto3.client("s3", endpoint_url=moto, region_name="us-east-1").create_bucket(Bucket=BUCKET)

    def open_(looks: int = 1, options: str = "&storage-class=GLACIER") -> ObjectStorage:
        transition = {"progression": "manual", "times": looks}
        _call(
            moto, "/moto-api/state-manager/set-transition", {"model_name": "s3::keyrestore", "transition": transition}
        )
        return ObjectStorage(parse_address(f"s3://{BUCKET}/cold?endpoint={moto}{options}"), ENVIRON)

    return open_


def _call(endpoint: str, path: str, body: object) -> None:
    request = urllib.request.Request(
        endpoint + path, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    urllib.request.urlopen(request).close()


def test_only_data_packs_freeze(archive: Callable[..., ObjectStorage]) -> None:
    store = archive()
    for name in ("packs/ab/one", "meta/ab/one", "tier.json"):
        store.store(name, b"some bytes")
    with pytest.raises(ObjectFrozen) as caught:
        store.retrieve("packs/ab/one")
    assert not caught.value.transient
    assert store.retrieve("meta/ab/one") == store.retrieve("tier.json") == b"some bytes"


def test_the_state_of_a_thaw_is_asked_from_the_store(archive: Callable[..., ObjectStorage]) -> None:
    store = archive(looks=4)
    store.store("packs/ab/one", b"some bytes")
    store.store("meta/ab/one", b"x")
    found = store.archive()
    assert found is not None
    assert found.thaw_state("packs/ab/one") == "cold"
    assert found.thaw_state("meta/ab/one") == "hot"
    found.thaw(["packs/ab/one", "meta/ab/one"], 3)
    found.thaw(["packs/ab/one"], 3)  # under way already
    again = archive(looks=4).archive()
    assert again is not None
    states = [again.thaw_state("packs/ab/one") for _ in range(6)]
    assert states[0] == "thawing"
    assert states[-1] == "ready"
    assert store.retrieve("packs/ab/one") == b"some bytes"


def test_what_is_not_there_cannot_be_thawed(archive: Callable[..., ObjectStorage]) -> None:
    found = archive().archive()
    assert found is not None
    with pytest.raises(ObjectNotFound):
        found.thaw(["packs/ab/none"], 1)
    with pytest.raises(ObjectNotFound):
        found.thaw_state("packs/ab/none")


def test_a_frozen_object_is_compared_by_its_checksum(archive: Callable[..., ObjectStorage]) -> None:
    store = archive()
    store.store("packs/ab/one", b"some bytes")
    found = store.archive()
    assert found is not None
    assert found.holds("packs/ab/one", b"some bytes")
    assert not found.holds("packs/ab/one", b"some bytez")
    assert not found.holds("packs/ab/one", b"more than some bytes")


def test_other_classes_have_nothing_to_thaw(archive: Callable[..., ObjectStorage]) -> None:
    assert archive(options="&storage-class=STANDARD_IA").archive() is None
    assert archive(options="").archive() is None


def test_how_long_it_takes_depends_on_class_and_retrieval(archive: Callable[..., ObjectStorage]) -> None:
    hours = {
        "&storage-class=GLACIER": 5,
        "&storage-class=GLACIER&retrieval=bulk": 12,
        "&storage-class=DEEP_ARCHIVE": 12,
        "&storage-class=DEEP_ARCHIVE&retrieval=bulk": 48,
    }
    for options, expected in hours.items():
        found = archive(options=options).archive()
        assert found is not None
        assert found.usual_s == expected * 3600
    with pytest.raises(InvalidRequest, match="no such retrieval"):
        archive(options="&storage-class=DEEP_ARCHIVE&retrieval=expedited").archive()


def test_a_bucket_that_is_not_there_is_told(archive: Callable[..., ObjectStorage], moto: str) -> None:
    found = ObjectStorage(
        parse_address(f"s3://no-such-bucket?endpoint={moto}&storage-class=GLACIER"), ENVIRON
    ).archive()
    assert found is not None
    for call in (lambda: found.thaw(["packs/ab/one"], 1), lambda: found.thaw_state("packs/ab/one")):
        with pytest.raises(StorageMissing, match="no-such-bucket"):
            call()


@pytest.mark.parametrize("tiered", [True, False], ids=["cold tier", "whole repository"])
def test_a_repository_is_restored_out_of_the_archive(
    archive: Callable[..., ObjectStorage], tmp_path: Path, tiered: bool
) -> None:
    cold = archive(looks=200)
    clock = FakeClock()

    def open_cold(address: str, create: bool) -> StorageBackend:
        return archive(looks=200)

    environment = Environment(pack_target=256 << 10, threads=2, clock=clock, open_cold=open_cold)
    source = make_source(tmp_path / "source", files=12)
    store = MemoryStorage() if tiered else cold
    with Repository.create(store, SECRET, environment=environment) as repository:
        snapshot = back_up(repository, source)
        if tiered:
            set_tier(repository, cold.url, 0)
    if tiered:
        with Repository.open(store, SECRET, environment=environment) as repository:
            assert run_move(repository, plan_move(repository)).packs
        assert not list(store.list("packs/"))
    packs = list(cold.list("packs/"))
    with Repository.open(store, SECRET, environment=environment) as repository:
        manifest = repository.snapshots.get(snapshot)
        plan = plan_restore(repository, manifest, tmp_path / "out", RestoreOptions())
        assert plan.cold is not None
        assert len(plan.cold.frozen) == len(packs)
        with pytest.raises(ThawPending, match=f"{len(packs)} packs"):
            run_restore(repository, manifest, tmp_path / "out", RestoreOptions(wait=False))
        assert not (tmp_path / "out").exists()
    archive(looks=3)
    with Repository.open(store, SECRET, environment=environment) as repository:  # another process, later
        result = run_restore(repository, manifest, tmp_path / "out", RestoreOptions(verify=True))
    assert not result.errors
    assert contents(tmp_path / "out" / str(source).lstrip("/")) == contents(source)
