"""The JSON Schema of policy files, for editors."""

from __future__ import annotations

from typing import Any, Final

from backstay.control.policies.policy import PolicyFile

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """What an editor may hold a file against. Values may be variables, so that numbers may be texts with a `${`."""
    made = PolicyFile.model_json_schema()
    return {"$schema": _DIALECT, "title": "Policy file of Backstay", **_with_variables(made)}


def _with_variables(node: Any) -> Any:  # noqa: ANN401 - whatever JSON can say
    if isinstance(node, list):
        return [_with_variables(item) for item in node]
    if not isinstance(node, dict):
        return node
    inner = {name: _with_variables(value) for name, value in node.items()}
    if inner.get("type") in ("integer", "boolean"):
        told = {name: inner.pop(name) for name in ("title", "default", "description") if name in inner}
        return {**told, "anyOf": [inner, {"type": "string", "pattern": r"\$\{"}]}
    return inner
