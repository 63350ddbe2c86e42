"""The public face of the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import backstay


@pytest.mark.parametrize("name", backstay.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(backstay, name) is not None


def test_all_and_homes_agree() -> None:
    assert sorted(backstay._HOMES) == sorted(backstay.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Nonsense"):
        backstay.Nonsense  # noqa: B018


def test_nothing_is_loaded_before_signals_are_heard() -> None:
    """An interrupt until then shows a traceback; without `site`, which may have loaded anything."""
    code = "import backstay.__main__, sys; print([m for m in ('typing', 're', 'importlib') if m in sys.modules])"
    environ = {"PYTHONPATH": str(Path(backstay.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-S", "-c", code], env=environ, capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import backstay, sys; print([m for m in ('zstandard', 'cryptography', 'lmdb', 'typer') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"
