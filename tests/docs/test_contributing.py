"""The code in CONTRIBUTING.md works as it stands: its blocks are files, and the tests among them pass."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from backstay.storage import drivers
from backstay.storage.backend import StorageBackend
from backstay.storage.registry import open_backend

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
FILES = {
    name: code
    for code in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    for name in re.findall(r"\A# (\w+\.py)\n", code)
}


def written(place: Path) -> Path:
    for name, code in FILES.items():
        (place / name).write_text(code)
    return place


def test_every_block_of_python_is_a_file() -> None:
    assert PAGE.count("```python\n") == len(FILES) == 4


@pytest.mark.parametrize(("name", "least"), [("test_backstay_sqlite.py", 20), ("test_backstay_zip.py", 2)])
def test_the_tests_pass(tmp_path: Path, name: str, least: int) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{written(tmp_path)}"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        os.devnull,
        f"--rootdir={tmp_path}",
    ]
    command += [f"--basetemp={tmp_path / 'scratch'}", name]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= least


def test_the_entry_point_makes_addresses_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(written(tmp_path))
    declared = tomllib.loads(re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0])
    (group, points), *others = declared["project"]["entry-points"].items()
    assert (group, others) == (drivers.GROUP, [])
    points = [EntryPoint(name, value, group) for name, value in points.items()]
    monkeypatch.setattr(drivers, "entry_points", lambda **_: points)
    with open_backend(f"sqlite:{tmp_path}/objects.db") as backend:
        assert isinstance(backend, StorageBackend)
        assert backend.url == f"sqlite:{tmp_path}/objects.db"


def test_variables_are_read_by_tests() -> None:
    read = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__))
    for name in set(re.findall(r"BACKSTAY_[A-Z_]+", PAGE)):
        assert f'"{name}"' in read, name
