"""The page on the interface: its list is that of the program, and its examples work."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from backstay.api.app import ENDPOINTS
from backstay.api.endpoints import PUBLIC
from tests.api.world import World, first_backup, serving

PAGE = (Path(__file__).parents[2] / "docs/api.md").read_text()
COMMANDS = re.findall(r"^(curl .*?[^\\])$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_list_of_endpoints_is_that_of_the_program() -> None:
    listed = re.findall(r"^\| `(\w+) (\S+)` \| (\S+) \| (.+) \|$", PAGE, re.MULTILINE)
    assert listed == [
        (one.method, one.path, "-" if one.needs is PUBLIC else f"`{one.needs}`", one.summary) for one in ENDPOINTS
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serving(tmp_path_factory.mktemp("api")) as world:
        yield world


@pytest.fixture(scope="module")
def variables(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    backup = first_backup(world)
    planned, restored = (  # not the same: what is planned would conflict with what was restored meanwhile
        {"backup_id": backup["id"], "target": {"path": str(tmp_path_factory.mktemp("api-page") / "out")}}
        for _ in range(2)
    )
    plan = world.admin.ok("POST", "/api/restore/validate", planned)
    restore = world.admin.ok("POST", "/api/restore/initiate", restored)
    return {
        "TOKEN": world.tokens["admin"],
        "JSON": re.findall(r'export JSON="(.*?)"', PAGE)[0],
        "API": "",
        "BACKUP": backup["id"],
        "JOB": backup["job_id"],
        "PLAN": plan["plan_id"],
        "RESTORE": restore["id"],
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_each_example_is_answered_well(world: World, variables: dict[str, str], command: str) -> None:
    for name, value in variables.items():
        command = command.replace(f"${name}", value)
    words = shlex.split(command.replace("\\\n", " "), comments=True)
    method, path, body, headers = "", "", "", dict[str, str]()
    given = iter(words[1:])
    for word in given:
        if word == "-H":
            name, _, value = next(given).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = next(given)
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")  # as curl does
        elif word == "-X":
            method = next(given)
        elif not word.startswith("-"):
            path = word
    answer = world.nobody.call(method or ("POST" if body else "GET"), path, headers=headers, content=body.encode())
    expected = (409,) if method == "DELETE" else (200, 202)  # the job of the example has ended
    assert answer.status_code in expected, answer.text
