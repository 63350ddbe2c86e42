"""The page on access: its tables say what the program does, and its example loads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backstay.control.access.access import Access
from backstay.control.access.denied import REASONS
from backstay.control.access.passwords import Passwords
from backstay.control.access.permissions import OF_AGENTS, PERMISSIONS, ROLES
from backstay.control.access.rate_limits import DEFAULT_RATES
from backstay.control.policies.document import parse_document
from backstay.control.policies.loading import checked
from backstay.testing import FakeClock
from tests.control.access.conftest import CHEAP, catalog, empty_catalog

__all__ = ["catalog", "empty_catalog"]

PAGE = (Path(__file__).parents[2] / "docs/access.md").read_text()


def test_the_table_of_roles_is_that_of_the_program() -> None:
    begins = ("| permission", "|---|---|---|---|---|---|", "| `")
    heads, _, *rows = [line for line in PAGE.splitlines() if line.startswith(begins)]
    roles = [word.strip() for word in heads.split("|")[2:-1]]
    assert roles == list(ROLES)
    told: dict[str, set[str]] = {role: set() for role in roles}
    for row in rows:
        names, *cells = (cell.strip() for cell in row.split("|")[1:-1])
        if len(cells) == len(roles):
            for role, cell in zip(roles, cells, strict=True):
                told[role] |= set(re.findall(r"`([a-z_]+:[a-z_]+)`", names)) if cell == "yes" else set()
    assert told == {role: set(permissions) for role, permissions in ROLES.items()}
    assert told["admin"] == set(PERMISSIONS - OF_AGENTS)


def test_the_reasons_are_those_that_are_counted() -> None:
    tail = PAGE[PAGE.index("## What is refused") :]
    assert set(re.findall(r"`([a-z_]+)`", tail)) - {"backup_auth_denied_total"} == set(REASONS)


@pytest.mark.parametrize("kind", DEFAULT_RATES)
def test_the_rates_are_those_that_hold(kind: str) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.endswith(f"| `{kind}` |")]
    rate = DEFAULT_RATES[kind]  # type: ignore[index]
    unit = {60: "a minute", 3600: "an hour"}[int(rate.seconds)]
    assert f"| {rate.times} {unit} |" in row


def test_the_example_is_heeded(catalog: object) -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    settings = checked(parse_document(example.encode(), "example"), {}).content.backup_manager.access
    access = Access(catalog, FakeClock(), passwords=Passwords(CHEAP))  # type: ignore[arg-type]
    access.use(settings)
    for _ in range(1200):
        access.limits.hit("api", "k")
    assert settings is not None
    assert settings.oidc is not None
    assert [role.role for role in settings.oidc.roles] == ["operator", "viewer"]
