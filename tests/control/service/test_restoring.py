"""Restores as jobs: what changed at the target since they were asked for is found before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backstay.catalog.models import Job
from backstay.control.service.service import Service
from backstay.control.service.target_places import own_places, place_seen
from tests.control.service.conftest import Place, ended


def backed_up(service: Service) -> str:
    job = ended(service.jobs, service.jobs.create("backup", {}, actor="ann", policy="files"))
    assert job.backup_id is not None, job.error
    return job.backup_id


def restored(service: Service, backup: str, target: Path, **more: Any) -> Job:
    arguments = {"targets": [{"path": str(target)}], **more}
    return ended(service.jobs, service.jobs.create("restore", arguments, actor="ann", backup_id=backup))


def refused(job: Job) -> str:
    assert job.error is not None
    assert job.status == "failed"
    assert job.error["solution"]
    return str(job.error["code"])


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


def test_a_conflict_of_the_second_backup_keeps_the_first_from_being_written(service: Service, place: Place) -> None:
    first = backed_up(service)
    before = (place.root / "src/f1").read_bytes()
    (place.root / "src/f1").write_text("changed")
    second = backed_up(service)
    target = place.root / "out"
    there = target / str(place.root)[1:] / "src/f1"
    there.parent.mkdir(parents=True)
    there.write_bytes(before)  # as the first backup has it
    job = restored(service, first, target, backups=[first, second])
    assert refused(job) == "RestoreConflict"
    assert files(target) == ["f1"]


def test_a_target_that_became_a_link_is_not_written_to(service: Service, place: Place) -> None:
    backup, elsewhere = backed_up(service), place.root / "elsewhere"
    target = place.root / "allowed/out"
    target.mkdir(parents=True)
    elsewhere.mkdir()
    seen = [place_seen(target)]
    assert restored(service, backup, target, places=seen, dry_run=True).status == "succeeded"
    target.rmdir()
    target.symlink_to(elsewhere)
    job = restored(service, backup, target, places=seen)
    assert refused(job) == "RestoreConflict"
    assert job.error is not None
    assert str(elsewhere) in job.error["cause"]
    assert files(elsewhere) == []

    target.unlink()
    (place.root / "allowed").rename(place.root / "moved")
    (place.root / "allowed").symlink_to(elsewhere)
    assert refused(restored(service, backup, target, places=seen)) == "RestoreConflict"
    assert files(elsewhere) == []


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, "succeeded"),
        ({"device": -1}, "failed"),  # something was mounted
        ({"device": -1, "boot": "before"}, "succeeded"),  # numbers of file systems are given out at each start
        ({"device": -1, "real": "/other", "host": "another"}, "succeeded"),  # which has other links
    ],
)
def test_file_systems_are_compared_where_that_means_something(
    service: Service, place: Place, change: Any, status: str
) -> None:
    backup, target = backed_up(service), place.root / "out"
    job = restored(service, backup, target, places=[place_seen(target) | change])
    assert (job.status, target.exists()) == (status, status == "succeeded")


@pytest.mark.parametrize(
    "where",
    [
        lambda root: root / "data",
        lambda root: root / "data/inside",
        lambda root: root / "repository/inside",
        lambda root: root,  # they lie in it
    ],
)
def test_a_target_is_apart_from_what_the_service_keeps(
    service: Service, place: Place, where: Callable[[Path], Path]
) -> None:
    backup = backed_up(service)
    before = files(place.root / "repository")
    job = restored(service, backup, where(place.root), conflict="overwrite", delete=True)
    assert refused(job) == "InvalidRequest"
    assert files(place.root / "repository") == before
    assert not (place.root / str(place.root)[1:]).exists()
    link = place.root / "link"
    link.symlink_to(where(place.root))
    assert refused(restored(service, backup, link)) == "InvalidRequest"


def test_copies_are_kept_apart_too(service: Service, place: Place) -> None:
    place.write_copies(place.root / "copy")
    service.reload()
    found = list(own_places(service.data_dir, service.context().opener()))
    assert found == [service.data_dir, place.root / "repository", place.root / "copy"]
