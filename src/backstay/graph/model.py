"""One node of a computation graph: what it made, from what, by whom and why."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from sys import intern
from typing import Annotated, ClassVar, Final, Literal, Self, TypeAlias

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, StrictBool, StrictStr, model_validator

from backstay.core.names import printable
from backstay.errors import InvalidNode
from backstay.graph.validated import Validated, forget_given

MAX_NAME_BYTES: Final = 255  # of a node's id, and of one part of a path
MAX_PATH_BYTES: Final = 4096
MAX_DEPS: Final = 100_000  # of one node; as many inputs and outputs
MAX_NUMBER: Final = 2**63 - 1

_SCHEME: Final = "sha256:"
_CONTENT_ID: Final = re.compile(r"(?:sha256:)?[0-9a-f]{64}", re.ASCII)
_GRAPH_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_FOREIGN: Final = "graph:"
_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,255}", re.ASCII)  # most ids; nothing of these can be wrong

Status: TypeAlias = Literal["pending", "computing", "completed", "failed"]


@dataclass(frozen=True, slots=True)
class Ref:
    """A node of another graph, written `graph:NAME#ID`."""

    graph: str
    node: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """What a dependency refers to in another graph; None if it is a node of the same one. Raises InvalidNode."""
        if not text.startswith(_FOREIGN):
            return None
        graph, sign, node = text.removeprefix(_FOREIGN).partition("#")
        try:
            if not sign:
                raise ValueError("a node of another graph is written graph:NAME#ID")
            return cls(graph_name(graph), node_id(node))
        except ValueError as error:
            raise InvalidNode(f"{_shown(text)} names no node of another graph", cause=str(error)) from None

    def __str__(self) -> str:
        return f"{_FOREIGN}{self.graph}#{self.node}"


def is_foreign(dep: str) -> bool:
    """Whether a dependency of a valid node lies in another graph."""
    return dep.startswith(_FOREIGN)


def content_id(text: str) -> str:
    """`sha256:` and 64 hex digits, from that or from the digits alone; raises ValueError."""
    if not _CONTENT_ID.fullmatch(text):
        raise ValueError("it must be sha256: and 64 lower-case hex digits")
    return intern(text if len(text) > 64 else _SCHEME + text)  # what one node makes, many others take


def graph_name(text: str) -> str:
    """A name that can stand in a source, a file name and a Ref; raises ValueError."""
    if not _GRAPH_NAME.fullmatch(text):
        raise ValueError("a graph's name has 1 to 64 letters, digits, dots, - and _, and begins with a letter or digit")
    return text


def node_id(text: str) -> str:
    """The id of a node, such as `train/fold-1`; raises ValueError.

    It may have slashes, but is never a way out of a directory, so that programs may use it as a path.
    """
    if _PLAIN_ID.fullmatch(text):
        return text
    _check_parts(text, MAX_NAME_BYTES)
    if text.startswith(_FOREIGN):
        raise ValueError(f"an id does not begin with {_FOREIGN}, which names another graph")
    return intern(text)  # one object for a node and all that depend on it: less memory, and quicker to find


def output_path(text: str) -> str:
    """Where a node's output lies as a file, below some directory; raises ValueError."""
    _check_parts(text, MAX_PATH_BYTES)
    if any(len(part.encode()) > MAX_NAME_BYTES for part in text.split("/")):
        raise ValueError(f"a part of it is longer than {MAX_NAME_BYTES} bytes")
    return text


def _check_parts(text: str, most_bytes: int) -> None:
    if not text.isprintable():
        raise ValueError("it has characters that cannot be printed")
    if len(text) > most_bytes or (not text.isascii() and len(text.encode()) > most_bytes):
        raise ValueError(f"it is longer than {most_bytes} bytes")
    if text[:1] in " /" or text[-1:] in " /" or "//" in text:
        raise ValueError("it must not be empty, nor begin or end with a space or slash, nor have two slashes in a row")
    if "." in text and not {".", ".."}.isdisjoint(text.split("/")):
        raise ValueError("it must not have . or .. as a part")


def _dependencies(deps: tuple[str, ...]) -> tuple[str, ...]:
    # One call for all of them: graphs have many more of these than nodes, and each call from pydantic costs.
    plain = _PLAIN_ID.fullmatch
    for dep in deps:
        if not plain(dep):
            _check_dependency(dep)
    if len(deps) > 1 and len(set(deps)) < len(deps):
        twice = next(dep for dep, times in Counter(deps).items() if times > 1)
        raise ValueError(f"{_shown(twice)} stands there twice")
    return deps


def _check_dependency(text: str) -> None:
    try:
        if Ref.parse(text) is None:
            node_id(text)
    except InvalidNode as error:
        raise ValueError(f"{_shown(text)}: {error.cause}") from None
    except ValueError as error:
        raise ValueError(f"{_shown(text)}: {error}") from None


def _content_ids(texts: tuple[str, ...]) -> tuple[str, ...]:
    is_id = _CONTENT_ID.fullmatch
    try:
        return tuple([intern(text) if len(text) > 64 and is_id(text) else content_id(text) for text in texts])
    except ValueError as error:
        wrong = next(text for text in texts if not _CONTENT_ID.fullmatch(text))
        raise ValueError(f"{_shown(wrong)}: {error}") from None


def _shown(text: str) -> str:
    return printable(text[:MAX_NAME_BYTES].encode("utf-8", "surrogatepass"))


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


def _absent_if_empty(given: object) -> object:
    return None if given == "" else given


ContentId = Annotated[StrictStr, AfterValidator(content_id)]
ContentIds = Annotated[tuple[StrictStr, ...], Field(max_length=MAX_DEPS), AfterValidator(_content_ids)]
NodeId = Annotated[StrictStr, AfterValidator(node_id)]
GraphName = Annotated[StrictStr, AfterValidator(graph_name)]
Line = Annotated[StrictStr, Field(max_length=1024)]
Whole = Annotated[int, Field(strict=True, ge=0, le=MAX_NUMBER)]
Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
Seconds = Annotated[float, Field(strict=True, ge=0)]


class ValidationResult(Validated):
    """What came out when a node's output was last checked by whoever made it."""

    kind: ClassVar[str] = "validation result"

    valid: StrictBool
    errors: Annotated[tuple[Annotated[StrictStr, Field(max_length=4096)], ...], Field(max_length=1000)] = ()
    checked_at: Moment | None = None


class NodeMetadata(Validated):
    """How a node was computed and what for. Times are in seconds, memory and sizes in bytes."""

    kind: ClassVar[str] = "metadata"

    agent_role: Line = ""
    capability: Line = ""  # the name that recompute functions are registered for
    input_hashes: ContentIds = ()
    output_hashes: ContentIds = ()
    computation_time: Seconds = 0.0
    memory_usage: Whole = 0
    validation_result: ValidationResult | None = None
    design_intent: StrictStr = ""
    user_requirement: StrictStr = ""
    # What follows is Backstay's own.
    command: Annotated[tuple[Annotated[StrictStr, Field(max_length=4096)], ...], Field(max_length=1000)] = ()
    path: Annotated[StrictStr, AfterValidator(output_path)] | None = None  # of the output as a file
    deterministic: StrictBool = True  # whether the same inputs give the same bytes
    media_type: Annotated[StrictStr, Field(max_length=255)] = ""
    size: Whole | None = None  # of the output


class Node(Validated):
    """A step of a computation. `hash` is the id of its output, which a completed node must have.

    A dep is the id of a node of the same graph, or `graph:NAME#ID`.
    """

    kind: ClassVar[str] = "node"

    id: NodeId
    hash: Annotated[ContentId | None, BeforeValidator(_absent_if_empty)] = None
    deps: Annotated[tuple[StrictStr, ...], Field(max_length=MAX_DEPS), AfterValidator(_dependencies)] = ()
    metadata: NodeMetadata = NodeMetadata()
    status: Status = "pending"
    agent_id: Line = ""
    trace_id: Line = ""

    @model_validator(mode="after")
    def _completed_has_output(self) -> Self:
        if self.status == "completed" and self.hash is None:
            raise ValueError("a completed node must have the hash of its output")
        forget_given(self)
        forget_given(self.metadata)
        return self

    @property
    def values(self) -> tuple[str, ...]:
        """The ids of all that this node made: its output first, each once."""
        if self.metadata.output_hashes == (self.hash,):  # as with most
            return self.metadata.output_hashes
        made = self.metadata.output_hashes if self.hash is None else (self.hash, *self.metadata.output_hashes)
        return tuple(dict.fromkeys(made))


# From the first compacted values the interpreter takes how those that follow are kept.
NodeMetadata().compacted()
Node(id="first").compacted()
