"""What the documents name exists: files and headings, commands, modules, exported names."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import backstay.testing
from backstay.cli.main import command_tree

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"\bbackstay((?: +-{1,2}[a-z-]+(?:[ =][A-Z~/$\"]\S*)?)*) +([a-z][a-z-]*)(?: +([a-z][a-z-]*))?")
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@cache
def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as code forges make them."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_resolve(page: Path) -> None:
    for target in LINK.findall(re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


@cache
def commands() -> dict[str, set[str]]:
    """Every command, with its own commands."""
    return {name: set(getattr(found, "commands", ())) for name, found in command_tree().commands.items()}


@pytest.mark.parametrize(
    "page",
    PAGES,
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_commands_exist(page: Path) -> None:
    known = commands()
    for code in CODE.findall(page.read_text()):
        for _, name, sub in COMMAND.findall(code):
            assert name in known, f"backstay {name}"
            assert not known[name] or not sub or sub in known[name], f"backstay {name} {sub}"


def test_commands_are_looked_for() -> None:
    found = [name for page in PAGES for code in CODE.findall(page.read_text()) for _, name, _ in COMMAND.findall(code)]
    assert {"backup", "restore", "verify", "key", "gc"} <= set(found)


@cache
def modules() -> set[str]:
    """All that is written in Python here, from the root."""
    inside = [
        path for name in ("src", "tests", "tools", "benchmarks", "examples") for path in (ROOT / name).rglob("*.py")
    ]
    return {str(path.relative_to(ROOT)) for path in inside}


@each_page
def test_modules_exist(page: Path) -> None:
    """`index/index.py`, or `index.py` where the package is clear: some module of the product ends like this."""
    files = modules()
    for name in re.findall(r"`([\w/]+\.py)`", page.read_text()):
        assert any(file == name or file.endswith(f"/{name}") for file in files), name
    for name in re.findall(r"`(?:src/)?((?:\w+/)+)`", page.read_text()):
        if not name.startswith(
            (
                "packs",
                "meta",
                "index",
                "keys",
                "sessions",
                "snapshots",
                "drops",
                "gc",
                "holds",
                "log",
                "mirror",
                "quota",
                "readers",
                "cold",
                "tiers",
                "wal",
                "values",
                "export",
            )
        ):
            assert name in LATER or any(f"/{name}" in f"/{file}" for file in files), name


LATER = {"control/", "catalog/", "api/", "probe/"}


def test_what_the_test_kit_exports_exists() -> None:
    for name in backstay.testing.__all__:
        assert hasattr(backstay.testing, name)


@each_page
def test_names_imported_by_examples_exist(page: Path) -> None:
    for module, names in re.findall(r"^from (backstay(?:\.[\w.]+)?) import ([\w, ]+)$", page.read_text(), re.MULTILINE):
        found = import_module(module)
        for name in names.split(", "):
            assert hasattr(found, name), f"{module}.{name}"
            assert module != "backstay.testing" or name in backstay.testing.__all__, name


@each_page
def test_nothing_is_left_of_the_workshop(page: Path) -> None:
    """Documents are for readers who have this repository and nothing else."""
    assert not re.search(r"/work/|/tmp/|TODO|FIXME|XXX", page.read_text())
