"""What `backstay.graph` offers, and that nothing of it is loaded by programs that do without graphs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import backstay.graph

_HEAVY: Final = (
    "print(*[name for name in sys.modules"
    " if name in ('pydantic', 'networkx', 'distributed') or name.startswith('backstay.graph.')])"
)


@pytest.mark.parametrize("name", backstay.graph.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(backstay.graph, name) is not None


def test_all_and_homes_agree() -> None:
    assert sorted(backstay.graph._HOMES) == sorted(backstay.graph.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nonsense"):
        backstay.graph.Nonsense  # noqa: B018


def loaded(code: str, **env: str) -> list[str]:
    """What a program has loaded in the end of heavy modules and of ours for graphs."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{_HEAVY}"],
        env={"PYTHONPATH": str(Path(backstay.__file__).parents[1])} | env,
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.splitlines()[-1].split()


def test_the_package_itself_loads_nothing_heavy() -> None:
    assert loaded("import backstay.graph") == []
    of_a_graph = set(loaded("from backstay.graph import Node, MetadataGraph"))
    assert "pydantic" in of_a_graph
    assert of_a_graph.isdisjoint({"networkx", "distributed"})


def test_backups_and_restores_load_nothing_of_graphs(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    code = (
        "from backstay.cli.main import run\n"
        "env = {'BACKSTAY_PASSWORD': 'p', 'BACKSTAY_REPO': 'repo', 'HOME': '.'}\n"
        "assert run(['init'], env) == 0\n"
        "assert run(['backup', 'data'], env) == 0\n"
        "assert run(['restore', 'latest', '--to', 'out'], env) == 0\n"
    )
    # The parser of command lines loads pydantic, where a command has options; our own use of it is not loaded.
    assert set(loaded(f"import os; os.chdir({str(tmp_path)!r})\n{code}")) <= {"pydantic"}
    assert list((tmp_path / "out").rglob("data"))
