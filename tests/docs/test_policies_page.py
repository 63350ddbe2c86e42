"""The page on policy files: its example loads, and every key that there is stands on it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from backstay.control.policies.document import parse_document
from backstay.control.policies.loading import checked
from backstay.control.policies.schema import schema

PAGE = (Path(__file__).parents[2] / "docs/policies.md").read_text()


def test_the_example_loads(tmp_path: Path) -> None:
    secret = tmp_path / "backup"
    secret.write_text("hunter2\n")
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    text = example.replace("/run/secrets/backup", str(secret))
    loaded = checked(parse_document(text.encode(), "example"), {"DB_URL": "postgresql://shop@localhost/shop"})
    assert loaded.content.names == ["shop"]


def test_every_key_is_on_the_page() -> None:
    def keys(node: Any) -> set[str]:
        if isinstance(node, dict):
            found = set(node.get("properties", ()))
            return found.union(*(keys(value) for value in node.values()))
        return set().union(*map(keys, node)) if isinstance(node, list) else set()

    known = keys(schema())
    assert {"keep_daily", "one_file_system", "on_error"} <= known
    assert [key for key in sorted(known) if not re.search(rf"\b{key}\b", PAGE)] == []
