"""A policy file as it holds: every value with where it comes from, and nothing that came from outside.

As text it is a policy file again, which says the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from pydantic import BaseModel

from backstay.control.policies.document import Document, Items, Key, Node, Scalar, Value, resolved
from backstay.control.policies.effective import INHERITED, SCHEDULING, Origin, effective
from backstay.control.policies.interpolation import escaped
from backstay.control.policies.loading import LoadedPolicies
from backstay.control.policies.mistakes import HIDDEN
from backstay.control.policies.policy import BackupManagerSettings, Compression, Encryption, Policy, Scheduling
from backstay.control.policies.values import HIDDEN_ADDRESS

_PASSWORD: Final = re.compile(r"(://[^/@:\s]*:)[^/\s]+@")
_WORD: Final = re.compile(r"[A-Za-z0-9/_.][A-Za-z0-9/_.-]*", re.ASCII)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}", re.ASCII)
_MANAGER: Final = "backup_manager"


@dataclass(frozen=True, slots=True)
class Shown:
    """A value, without what is secret of it, and who said it."""

    value: Value
    origin: Origin


ShownNode: TypeAlias = "Shown | list[ShownNode] | dict[str, ShownNode]"


def show(loaded: LoadedPolicies, name: str | None = None) -> dict[str, ShownNode]:
    """All that holds, or what holds for one policy. Raises NotFound."""
    showing = _Showing(_secret_keys(loaded.document))
    settings = loaded.content.backup_manager
    names = loaded.content.names if name is None else [name]
    policies = {one: showing.policy(one, loaded.policy(one), settings) for one in names}
    return {_MANAGER: showing.settings(settings), **({"policies": dict(policies)} if policies else {})}


def _secret_keys(document: Document) -> frozenset[Key]:
    """The keys whose values came from outside."""

    def below(node: Node, key: Key) -> Iterator[Key]:
        if isinstance(node, Scalar):
            if node.outside:
                yield key
        elif isinstance(node, Items):
            for at, item in enumerate(node.items):
                yield from below(item, (*key, at))
        else:
            for name, entry in node.entries.items():
                yield from below(entry.node, (*key, name))

    return frozenset(below(document.root, ()))


@dataclass(frozen=True, slots=True)
class _Showing:
    secret: frozenset[Key]

    def settings(self, settings: BackupManagerSettings) -> dict[str, ShownNode]:
        filled = settings.model_copy(
            update={
                "compression": settings.compression or Compression(),
                "encryption": settings.encryption or Encryption(),
                "scheduling": settings.scheduling or Scheduling(),
            }
        )
        return self._table(filled, (_MANAGER,), "file")

    def policy(self, name: str, policy: Policy, settings: BackupManagerSettings) -> dict[str, ShownNode]:
        at: Key = ("policies", name)
        shown = self._table(policy, at, "file")
        found = effective(policy, settings)
        for block in INHERITED:
            if getattr(policy, block) is None and isinstance(inherited := getattr(found, block), BaseModel):
                theirs = (_MANAGER, "scheduling" if block == "schedule" else block)
                if table := self._table(inherited, theirs, "backup_manager"):
                    shown[block] = table
        scheduling = settings.scheduling
        if policy.schedule is None or policy.schedule.timezone is None:
            given = scheduling is not None and "timezone" in scheduling.model_fields_set
            schedule = shown.setdefault("schedule", {})
            assert isinstance(schedule, dict)
            schedule["timezone"] = self._leaf(
                found.schedule.timezone, (_MANAGER, "scheduling", "timezone"), "backup_manager" if given else "built-in"
            )
        return shown

    def _table(self, model: BaseModel, key: Key, origin: Origin) -> dict[str, ShownNode]:
        shown: dict[str, ShownNode] = {}
        for name, field in type(model).model_fields.items():
            value = getattr(model, name)
            said: Origin = origin if name in model.model_fields_set else "built-in"
            if value is None or (value in ((), "", {}) and said == "built-in"):
                continue
            theirs = SCHEDULING.get(name, name) if key[-1:] == ("scheduling",) else name
            if HIDDEN_ADDRESS in field.metadata:
                shown[name] = Shown(_by_scheme(value), said)
            else:
                shown[name] = self._node(value, (*key, theirs), said)
        return shown

    def _node(self, value: object, key: Key, origin: Origin) -> ShownNode:
        if isinstance(value, BaseModel):
            return self._table(value, key, origin)
        if isinstance(value, Mapping):
            return {name: self._node(item, (*key, name), origin) for name, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [self._node(item, (*key, at), origin) for at, item in enumerate(value)]
        return self._leaf(value, key, origin)

    def _leaf(self, value: object, key: Key, origin: Origin) -> Shown:
        assert value is None or isinstance(value, (str, int, float, bool))
        if key in self.secret:
            return Shown(HIDDEN, origin)
        return Shown(_PASSWORD.sub(rf"\1{HIDDEN}@", value) if isinstance(value, str) else value, origin)


def _by_scheme(address: str) -> str:
    """An address of which nothing is told but its kind; another secret is hidden as a whole."""
    scheme, parted, _ = address.partition("://")
    return f"{scheme}://{HIDDEN}" if parted and _SCHEME.fullmatch(scheme) else HIDDEN


def as_document(node: ShownNode) -> object:
    """For programs: each value as `{"value": …, "from": …}`."""
    if isinstance(node, Shown):
        return {"value": node.value, "from": node.origin}
    if isinstance(node, list):
        return [as_document(item) for item in node]
    return {name: as_document(inner) for name, inner in node.items()}


def as_text(shown: Mapping[str, ShownNode]) -> list[str]:
    """For people: the lines of a policy file, with remarks on what the file itself does not say."""
    return list(_lines(shown, ""))


def _lines(table: Mapping[str, ShownNode], indent: str) -> Iterator[str]:
    for name, node in table.items():
        yield from _entry(f"{indent}{_word(name)}:", node, f"{indent}  ")


def _entry(head: str, node: ShownNode, indent: str) -> Iterator[str]:
    if isinstance(node, Shown):
        yield f"{head} {_scalar(node.value)}{_remark(node)}"
    elif not node:
        yield f"{head} {'[]' if isinstance(node, list) else '{}'}"
    elif isinstance(node, dict):
        yield head
        yield from _lines(node, indent)
    else:
        yield head
        for item in node:
            yield from _item(item, indent)


def _item(node: ShownNode, indent: str) -> Iterator[str]:
    if not isinstance(node, dict) or not node:
        yield from _entry(f"{indent}-", node, f"{indent}  ")
        return
    first, *rest = _lines(node, f"{indent}  ")
    yield f"{indent}- {first.lstrip()}"
    yield from rest


def _remark(shown: Shown) -> str:
    return "" if shown.origin == "file" else f"  # {shown.origin}"


def _scalar(value: Value) -> str:
    if isinstance(value, str):
        return _word(escaped(value))
    return "null" if value is None else str(value).lower()


def _word(text: str) -> str:
    """A text as YAML, in quotes where it would be something else without."""
    if _WORD.fullmatch(text) and isinstance(resolved(text), str):
        return text
    return '"' + "".join(map(_character, text)) + '"'


def _character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"
