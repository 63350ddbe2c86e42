"""Whatever happens to the files, `backstay graph restore` brings them back, and what is well is left alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from etl_pipeline.pipeline import BY_NAME, STEPS

README = Path(__file__).parents[1] / "README.md"
FILES = {step.path for step in STEPS}
NOT_WELL = 1  # how a restore ends that could not have every node


@dataclass(frozen=True)
class Place:
    """A home with a repository in it, and beside it the files of the pipeline."""

    root: Path

    @property
    def files(self) -> Path:
        return self.root / "work"

    def program(self, *words: object, status: int = 0) -> bytes:
        """What a program says, called as a user calls it."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.run(
            [*map(str, words)],
            cwd=self.root,
            env={"HOME": str(self.root / "home"), "PATH": path},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, done.stderr.decode()
        return done.stdout

    def shell(self, script: str) -> str:
        return self.program("bash", "-euo", "pipefail", "-c", script).decode()

    def backstay(self, *words: object, status: int = 0) -> dict[str, Any]:
        """The one document that a command prints."""
        told: dict[str, Any] = json.loads(self.program("backstay", "--json", *words, status=status))
        return told

    def restore(self, *words: object, status: int = 0) -> dict[str, str]:
        """What was done, where something was to be done, by the names of the nodes."""
        told = self.backstay("graph", "restore", "--to", self.files, *words, status=status)
        return {node["id"]: node["action"] for node in told["nodes"] if node["action"] != "reused"}

    def lose_values(self, *names: str) -> None:
        """The repository loses the outputs of these steps, though a snapshot names them."""
        graph = json.loads((self.root / "graph.json").read_bytes())
        hashes = [node["hash"] for node in graph["nodes"] if node["id"] in names]
        assert len(self.backstay("cas", "delete", "--force", *hashes)["deleted"]) == len(names)

    def contents(self) -> dict[str, bytes]:
        return {path: (self.files / path).read_bytes() for path in FILES}

    def marks(self) -> dict[str, tuple[int, int]]:
        """What changes with a file that is written: its inode or its time."""
        found = {path: self.files / path for path in FILES if (self.files / path).exists()}
        return {path: (file.stat().st_ino, file.stat().st_mtime_ns) for path, file in found.items()}


def of_readme(what: str) -> str:
    """The commands of the README in which this occurs."""
    [found] = [script for script in re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL) if what in script]
    return str(found)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A pipeline that ran, and a backup of it."""
    place = Place(tmp_path_factory.mktemp("made"))
    (place.root / "home").mkdir()
    place.shell(of_readme("backstay init"))
    return place


@pytest.fixture
def place(made: Place, tmp_path: Path) -> Place:
    """A copy that a test may damage."""
    return Place(Path(shutil.copytree(made.root, tmp_path / "copy", symlinks=True)))


def touched(before: dict[str, tuple[int, int]], place: Place) -> set[str]:
    after = place.marks()
    return {path for path in FILES if after.get(path) != before.get(path)}


def test_what_the_readme_loses_comes_back(place: Place, made: Place) -> None:
    told = place.shell(of_readme("graph restore"))
    assert re.findall(r"^(\w+) +restored ", told, re.MULTILINE) == ["model", "report"]
    assert place.contents() == made.contents()


def test_a_file_that_was_deleted(place: Place, made: Place) -> None:
    before = place.marks()
    (place.files / "features/test.csv").unlink()
    assert place.restore("--run-commands") == {"test": "restored"}
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
    assert place.restore("--run-commands") == {"model": "restored"}
    assert place.contents() == made.contents()
    assert touched(before, place) == {"model/coefficients.json"}
    [kept] = (place.files / ".backstay/replaced").glob("*/model/coefficients.json")
    assert kept.read_bytes() == rotten


def test_a_value_that_the_repository_lost(place: Place, made: Place) -> None:
    """The file still has it, and gives it back."""
    place.lose_values("train")
    before = place.marks()
    assert place.restore("--run-commands") == {"train": "restored"}
    assert place.contents() == made.contents()
    assert touched(before, place) == set()
    (place.files / "features/train.csv").unlink()
    assert place.restore() == {"train": "restored"}
    assert place.contents() == made.contents()


def test_an_intermediate_file_and_its_dependants_that_are_nowhere_any_more(place: Place, made: Place) -> None:
    lost = ("train", "model", "report")
    place.lose_values(*lost)
    before = place.marks()
    for name in lost:
        (place.files / BY_NAME[name].path).unlink()
    assert [*place.restore("--run-commands").items()] == [(name, "recomputed") for name in lost]  # in their order
    assert place.contents() == made.contents()
    assert touched(before, place) == {BY_NAME[name].path for name in lost}
    assert place.restore() == {}


def test_the_whole_directory_is_gone(place: Place, made: Place) -> None:
    shutil.rmtree(place.files)
    assert place.restore() == {step.name: "restored" for step in STEPS}
    assert place.contents() == made.contents()


def test_no_command_of_the_graph_runs_unless_that_is_said(place: Place) -> None:
    place.lose_values("model")
    (place.files / "model/coefficients.json").unlink()
    (place.files / "features/test.csv").unlink()
    before = place.marks()
    assert place.restore(status=NOT_WELL)["model"] == "blocked"
    assert place.marks() == before


def test_raw_data_that_is_nowhere_any_more_is_told(place: Place) -> None:
    place.lose_values("readings")
    (place.files / "raw/readings.csv").unlink()
    assert place.restore("--run-commands", status=NOT_WELL) == {"readings": "blocked"}
    assert not (place.files / "raw/readings.csv").exists()
