"""The tutorial and the README as they stand: every `sh` block is run, in order, by one shell."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.tutorials import ROOT, blocks_of, run_script


def shell(tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script as a user with an empty home would."""
    home, programs = tmp_path / "home", tmp_path / "bin"
    home.mkdir()
    programs.mkdir()
    return run_script(script, home=home, programs=programs, environ={"TZ": "Europe/Vienna"})


def test_tutorial(tmp_path: Path) -> None:
    blocks = blocks_of("docs/tutorial.md")
    assert len(blocks) > 10
    done = shell(tmp_path, "\n".join(blocks))
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert done.stderr.count("Recovery key:") == 2
    assert "Traceback" not in done.stderr
    assert (tmp_path / "home/letters/reader.txt").read_text().endswith("A second thought.\n")


def test_readme(tmp_path: Path) -> None:
    """Its commands, without the launcher in front of them."""
    commands = [block.strip().removeprefix("pip install uv && uv run ") for block in blocks_of("README.md")]
    assert commands == ["backstay backup ~/Documents", "backstay restore latest --to ~/restored", "pytest"]
    setup = "mkdir ~/Documents; echo hello > ~/Documents/file"
    done = shell(tmp_path, "\n".join([setup, *commands[:2], 'diff -r ~/Documents ~/restored"$HOME"/Documents']))
    assert done.returncode == 0, done.stderr


def test_links_lead_somewhere() -> None:
    for page in (ROOT / "README.md", ROOT / "docs/tutorial.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
