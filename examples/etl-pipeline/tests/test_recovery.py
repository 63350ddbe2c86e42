"""Whatever happens to the files of the pipeline, they come back, and what is well is left alone."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from etl_pipeline.pipeline import BY_NAME, STEPS, graph_of, run
from etl_pipeline.sample import write_sample

from backstay import ContentAddressableStorage, Repository, Secret, open_backend
from backstay.graph import GraphBackupManager, RegenerationPolicy
from backstay.graph.file_outputs import FileOutputs
from backstay.graph.manager import RestoreMeans
from backstay.graph.restore_report import RestoreReport

FILES = {step.path for step in STEPS}


@dataclass(frozen=True)
class Place:
    """The files, and the repository that has a snapshot of their graph."""

    files: Path
    repository: Path
    secret: Secret

    def contents(self) -> dict[str, bytes]:
        return {path: (self.files / path).read_bytes() for path in FILES}

    def marks(self) -> dict[str, tuple[int, int]]:
        """What changes with a file that is written: its inode or its time."""
        found = {path: self.files / path for path in FILES if (self.files / path).exists()}
        return {path: (file.stat().st_ino, file.stat().st_mtime_ns) for path, file in found.items()}

    def lose_values(self, *names: str) -> None:
        """The repository loses the outputs of these steps, though a snapshot names them."""
        with Repository.open(open_backend(str(self.repository)), self.secret) as repository:
            graph = GraphBackupManager(repository).list_snapshots()[0].graph
            values = ContentAddressableStorage(repository)
            for name in names:
                assert values.delete(graph[name].hash or "", force=True)

    def restore(self, *, run_commands: bool = True) -> RestoreReport:
        with Repository.open(open_backend(str(self.repository)), self.secret) as repository:
            manager = GraphBackupManager(repository)
            means = RestoreMeans(outputs=FileOutputs(self.files, manager.values))
            return manager.restore_snapshot(None, RegenerationPolicy(run_commands=run_commands), means)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A pipeline that ran, and a backup of it."""
    here = tmp_path_factory.mktemp("made")
    place = Place(here / "files", here / "repository", Secret.new_keyfile())
    write_sample(place.files)
    run(place.files)
    with Repository.create(open_backend(str(place.repository)), place.secret) as repository:
        manager = GraphBackupManager(repository, graph_of(place.files))
        with manager.values.batch() as batch:
            for step in STEPS:
                batch.store(place.files / step.path)
        manager.create_snapshot("after the first run")
    return place


@pytest.fixture
def place(made: Place, tmp_path: Path) -> Place:
    """A copy that a test may damage."""
    for directory in (made.files, made.repository):
        shutil.copytree(directory, tmp_path / directory.name)
    return Place(tmp_path / made.files.name, tmp_path / made.repository.name, made.secret)


def done(report: RestoreReport) -> dict[str, str]:
    """What was done, where something was to be done."""
    return {node.id: node.action for node in report.nodes if node.action != "reused"}


def touched(before: dict[str, tuple[int, int]], place: Place) -> set[str]:
    after = place.marks()
    return {path for path in FILES if after.get(path) != before.get(path)}


def test_a_file_that_was_deleted(place: Place, made: Place) -> None:
    before = place.marks()
    (place.files / "features/test.csv").unlink()
    assert done(place.restore()) == {"test": "restored"}
    assert place.contents() == made.contents()
    assert touched(before, place) == {"features/test.csv"}


def test_a_file_that_was_corrupted_behind_everybodys_back(place: Place, made: Place) -> None:
    """Its size and time are those of before, so that only reading it tells."""
    file = place.files / "model/coefficients.json"
    told = file.stat()
    rotten = bytearray(file.read_bytes())
    rotten[20] ^= 1
    file.write_bytes(rotten)
    os.utime(file, ns=(told.st_atime_ns, told.st_mtime_ns))
    before = place.marks()
    assert done(place.restore()) == {"model": "restored"}
    assert place.contents() == made.contents()
    assert touched(before, place) == {"model/coefficients.json"}
    [kept] = (place.files / ".backstay/replaced").glob("*/model/coefficients.json")
    assert kept.read_bytes() == rotten


def test_a_value_that_the_repository_lost(place: Place, made: Place) -> None:
    """The file still has it, and gives it back."""
    place.lose_values("train")
    before = place.marks()
    assert done(place.restore()) == {"train": "restored"}
    assert place.contents() == made.contents()
    assert touched(before, place) == set()
    (place.files / "features/train.csv").unlink()
    assert done(place.restore(run_commands=False)) == {"train": "restored"}
    assert place.contents() == made.contents()


def test_an_intermediate_file_and_its_dependants_that_are_nowhere_any_more(place: Place, made: Place) -> None:
    lost = ("train", "model", "report")
    place.lose_values(*lost)
    before = place.marks()
    for name in lost:
        (place.files / BY_NAME[name].path).unlink()
    report = place.restore()
    assert done(report) == dict.fromkeys(lost, "recomputed")
    assert [node.id for node in report.nodes if node.id in lost] == list(lost)
    assert place.contents() == made.contents()
    assert touched(before, place) == {BY_NAME[name].path for name in lost}
    assert done(place.restore(run_commands=False)) == {}


def test_the_whole_directory_is_gone(place: Place, made: Place) -> None:
    shutil.rmtree(place.files)
    assert done(place.restore(run_commands=False)) == {step.name: "restored" for step in STEPS}
    assert place.contents() == made.contents()


def test_no_command_of_the_graph_runs_unless_that_is_said(place: Place) -> None:
    place.lose_values("model")
    (place.files / "model/coefficients.json").unlink()
    (place.files / "features/test.csv").unlink()
    before = place.marks()
    report = place.restore(run_commands=False)
    assert not report.ok
    assert done(report)["model"] == "blocked"
    assert place.marks() == before


def test_raw_data_that_is_nowhere_any_more_is_told(place: Place) -> None:
    place.lose_values("readings")
    (place.files / "raw/readings.csv").unlink()
    report = place.restore()
    assert {node.id for node in report.problems} == {"readings"}
    assert not (place.files / "raw/readings.csv").exists()
