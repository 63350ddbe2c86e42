"""What the model refuses, told as mistakes of the file: line, key, what is wrong, what was perhaps meant."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from backstay.control.policies import origins, places, targets
from backstay.control.policies.document import Document, Items, Key, Node, Scalar, Table
from backstay.control.policies.policy import PolicyFile
from backstay.control.policies.values import Wrong, told_words
from backstay.errors import Mistake

NO_SUCH_KEY: Final = "there is no such key"
HIDDEN: Final = "***"
_SIMILAR: Final = 0.6
_SHOWN: Final = 14
_KINDS: Final = {
    "string": "text",
    "int": "a whole number",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "dict": "a table of keys",
    "model": "a table of keys",
    "float": "a number",
}
# What users of other programs write, and what it is called here.
_OTHER_WORDS: Final = {
    "ttl": "it is `keep_within`, such as 30d",
    "retention_days": "it is `keep_within`, such as 30d",
    "max_snapshots": "it is `keep_last`",
    "cron": "it is `full`, `incremental` or `differential`",
    "excludes": "it is `exclude`",
    "include": "only what is under `paths` is backed up",
    "email": "it is a target of the type `email`, under `backup_manager.notifications.targets`",
    "slack_webhook": "it is a target of the type `slack`, under `backup_manager.notifications.targets`",
    "from": "it is `sender`",
    "<<": "YAML 1.2 merges nothing; defaults for all policies stand in `backup_manager`",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of file: its model, and the types of what has a `type` in it, with what is said of them."""

    model: type[BaseModel]
    types: Callable[[Key], tuple[Sequence[str], str]]


def _types_of_policies(loc: Key) -> tuple[Sequence[str], str]:
    room = origins if "sources" in loc else targets if "targets" in loc else places
    return room.TYPES, room.TYPES_HINT


POLICIES: Final = Kind(model=PolicyFile, types=_types_of_policies)


def mistakes_of(error: ValidationError, document: Document, kind: Kind = POLICIES) -> list[Mistake]:
    """All mistakes that the model found, each once."""
    found = error.errors(include_url=False)
    deeper = {one["loc"][:-at] for one in found for at in range(1, len(one["loc"]))}
    told = (
        _mistake(one, document, kind)
        for one in found
        if not (one["type"] == "too_short" and tuple(one["loc"]) in deeper)
    )
    return list(dict.fromkeys(told))


def hint_for(key: str, known: Sequence[str]) -> str:
    """What was perhaps meant by a key that there is not."""
    if close := get_close_matches(key.lower(), known, n=1, cutoff=_SIMILAR):
        return f"did you mean {close[0]}?"
    if key in _OTHER_WORDS:
        return _OTHER_WORDS[key]
    return f"there are {told_words(sorted(known))}" if known and len(known) <= _SHOWN else ""


def _mistake(error: ErrorDetails, document: Document, of: Kind) -> Mistake:
    loc: Key = tuple(error["loc"])
    message, hint = _told(error, loc, of)
    if loc[-1:] == ("[key]",):
        loc = loc[:-1]
    if error["type"] == "union_tag_invalid" and isinstance(error.get("input"), dict):
        loc = (*loc, "type")
    for secret in sorted(_from_outside(document.root, loc), key=len, reverse=True):
        message = message.replace(repr(secret), HIDDEN).replace(secret, HIDDEN)
    return document.mistake(loc, message, hint)


def _told(error: ErrorDetails, loc: Key, of: Kind) -> tuple[str, str]:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "value_error" and isinstance(wrong := context["error"], Wrong):
        return str(wrong), wrong.hint
    if kind == "extra_forbidden":
        return NO_SUCH_KEY, hint_for(str(loc[-1]), list(known_keys(loc, of.model)))
    if kind == "missing":
        return "is missing", ""
    if kind == "union_tag_invalid":
        return _of_no_type(error, str(context["tag"]), *of.types(loc))
    if kind == "literal_error":
        return _none_of(error["input"], str(context["expected"]))
    if kind in ("too_short", "string_too_short"):
        return "must not be empty", ""
    for limit, word in (("ge", "at least"), ("le", "at most")):
        if limit in context:
            return f"must be {word} {context[limit]}, not {error['input']}", ""
    wanted = _KINDS.get(kind.partition("_")[0])
    if wanted is None:
        return error["msg"][:1].lower() + error["msg"][1:], ""
    hint = ""
    if wanted == "text" and isinstance(error["input"], (int, float)):
        hint = "put quotes around it"
    elif loc[-1] == "command":
        hint = 'a program and its arguments are a list of words, such as ["pg_dumpall", "--globals-only"]'
    return f"must be {wanted}, not {_kind(error['input'])}", hint


def _of_no_type(error: ErrorDetails, tag: str, known: Sequence[str], hint: str) -> tuple[str, str]:
    if not isinstance(error["input"], dict):
        return f"must be a table of keys, not {_kind(error['input'])}", ""
    if (kind := tag.strip("<>")) == "None":
        return "is missing", hint
    close = get_close_matches(kind.lower(), known, n=1, cutoff=_SIMILAR)
    return f"there is no type {kind!r}", f"did you mean {close[0]}?" if close else hint


def _none_of(value: object, expected: str) -> tuple[str, str]:
    words = [word.strip(" '") for word in expected.replace(" or ", ",").split(",")]
    close = get_close_matches(str(value), words, n=1, cutoff=_SIMILAR)
    return f"{value!r} is not {told_words(words)}", f"did you mean {close[0]}?" if close else ""


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) < 80 else "a long text"
    if isinstance(value, Mapping):
        return "a table of keys"
    return "a list" if isinstance(value, (list, tuple)) else f"the number {value}"


def known_keys(loc: Key, model: type[BaseModel] = PolicyFile) -> Iterator[str]:
    """The keys that the model has beside the last one of a location."""
    kinds: list[type[BaseModel]] = [model]
    in_names = False  # the next part is a name that the user chose
    for part in loc[:-1]:
        if in_names:
            in_names = False
        elif isinstance(part, str) and part.startswith("<"):
            kinds = [kind for kind in kinds if _tag(kind) == part]
        elif isinstance(part, str):
            fields = [kind.model_fields[part].annotation for kind in kinds if part in kind.model_fields]
            in_names = any(get_origin(annotation) is dict for annotation in fields)
            kinds = [model for annotation in fields for model in _models(annotation)]
    for kind in dict.fromkeys(kinds):
        yield from kind.model_fields


def _tag(kind: type[BaseModel]) -> str:
    (word,) = get_args(kind.model_fields["type"].annotation)
    return f"<{word}>"


def _models(annotation: Any) -> Iterator[type[BaseModel]]:  # noqa: ANN401 - any annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType, dict, tuple, list) or hasattr(annotation, "__metadata__"):
        for inner in get_args(annotation):
            yield from _models(inner)


def _from_outside(node: Node, key: Key) -> Iterator[str]:
    """The texts at and below a key that came from variables and files."""
    for part in key:
        if isinstance(node, Table) and isinstance(part, str) and part in node.entries:
            node = node.entries[part].node
        elif isinstance(node, Items) and isinstance(part, int) and part < len(node.items):
            node = node.items[part]
    yield from _outside_below(node)


def _outside_below(node: Node) -> Iterator[str]:
    if isinstance(node, Scalar):
        if node.outside and isinstance(node.value, str) and node.value:
            yield str(node.value)
        return
    inner = [entry.node for entry in node.entries.values()] if isinstance(node, Table) else node.items
    for one in inner:
        yield from _outside_below(one)
