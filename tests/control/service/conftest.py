"""A service over a directory of files, with everything but its interface."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from backstay.catalog.models import Job
from backstay.control.jobs.jobs import Jobs
from backstay.control.service.options import ServiceOptions
from backstay.control.service.service import Service
from backstay.trust.secrets import Secret
from tests.control.jobs.recording import eventually

POLICY = """
backup_manager:
  storage: {{type: local, path: {root}/repository}}
policies:
  files:
    sources:
      - type: filesystem
        paths: ["{root}/src"]
    schedule: {{full: "0 3 * * *"}}
    retention: {{keep_last: 2}}
  slow:
    sources:
      - {{type: filesystem, paths: ["{root}/src"]}}
    hooks:
      before:
        - command: ["sh", "-c", "until [ -e {root}/go ]; do sleep 0.05; done"]
  both:
    sources:
      - {{type: filesystem, name: good, paths: ["{root}/src"]}}
      - {{type: sqlite, name: bad, path: {root}/none.db}}
"""


class Place:
    """A directory with sources, a policy file and an environment of its own."""

    def __init__(self, root: Path, databases: Path) -> None:
        self.root = root
        shutil.copytree(databases, root / "data")
        self.warnings: list[str] = []
        self.key = Secret.new_keyfile().printed()  # opens faster than a password
        (root / "src").mkdir()
        for number in range(5):
            (root / "src" / f"f{number}").write_bytes(os.urandom(2000))
        self.file = root / "backstay.yaml"
        self.file.write_text(POLICY.format(root=root))

    def write_copies(self, *copies: Path) -> None:
        """Let the policy file name copies, one of which is enough."""
        named = ", ".join(f"{{type: local, path: {copy}}}" for copy in copies)
        storage = f"{{type: local, path: {self.root}/repository, copies: [{named}], quorum: 1}}"
        plain = f"{{type: local, path: {self.root}/repository}}"
        self.file.write_text(POLICY.format(root=self.root).replace(plain, storage))

    @property
    def environ(self) -> Mapping[str, str]:
        home = {"HOME": str(self.root / "home"), "BACKSTAY_PASSWORD": self.key}
        return {"PATH": os.environ["PATH"], "BACKSTAY_CACHE_DIR": str(self.root / "cache"), **home}

    def options(self, *, queues: tuple[str, ...] = ("backup", "restore", "verify", "maintenance")) -> ServiceOptions:
        return ServiceOptions(data_dir=self.root / "data", config=self.file, queues=queues, sweep_s=0.2, poll_s=0.05)

    def open(self, **more: tuple[str, ...]) -> Service:
        return Service.open(self.options(**more), environ=self.environ, warn=self.warnings.append)


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The databases of a service that has done nothing yet: to copy them is faster than to make them."""
    directory = tmp_path_factory.mktemp("service") / "data"
    with Service.open(ServiceOptions(data_dir=directory), environ=os.environ, warn=print):
        return directory


@pytest.fixture
def place(tmp_path: Path, databases: Path) -> Place:
    return Place(tmp_path, databases)


@pytest.fixture
def service(place: Place) -> Iterator[Service]:
    """One that runs jobs."""
    with place.open() as service:
        service.start()
        yield service
        service.stop()


def ended(jobs: Jobs, job: Job) -> Job:
    """The row of a job at its end."""
    eventually(lambda: jobs.get(job.id).finished_at is not None, f"the end of {job.kind}")
    return jobs.get(job.id)
