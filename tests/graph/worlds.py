"""Values in memory and graphs whose outputs are made from their inputs, so that every restore can be checked."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backstay.errors import CorruptedBackup, NotFound
from backstay.graph.inputs import Inputs
from backstay.graph.metadata_graph import MetadataGraph
from backstay.graph.model import Node
from backstay.graph.outputs import Outputs, StoredOutputs
from backstay.graph.policy import RegenerationPolicy
from backstay.graph.recompute import Recomputers
from backstay.graph.regeneration import RegenerationOptions, regenerate
from backstay.graph.restore_report import RestoreReport
from backstay.graph.validation import Validators
from backstay.graph.values import Batch

CAPABILITY = "join"


class Speechless(Exception):
    """An error whose message cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError


class MemoryValues:
    """Values as the repository keeps them, but in memory; single ones can be lost or damaged.

    Of the values in `torn` the store has lost the second half until they are stored again.
    """

    def __init__(self) -> None:
        self.data: dict[str, bytes] = {}
        self.opened: list[str] = []
        self.torn: set[str] = set()
        self.commits = 0
        self._lock = threading.Lock()

    def exists(self, key: str) -> bool:
        return key in self.data

    def missing(self, keys: Iterable[str]) -> list[str]:
        return sorted({key for key in keys if key not in self.data})

    def unavailable(self, keys: Iterable[str]) -> list[str]:
        return sorted({key for key in keys if key not in self.data or key in self.torn})

    def open(self, key: str) -> Iterator[bytes]:
        self.opened.append(key)
        if key not in self.data:
            raise NotFound(f"there is no value {key}")
        return self._torn(self.data[key]) if key in self.torn else iter((self.data[key],))

    def _torn(self, data: bytes) -> Iterator[bytes]:
        yield data[: len(data) // 2]
        raise CorruptedBackup("a pack is lost")

    def store(self, content: bytes | Path | Iterable[bytes], metadata: Mapping[str, object] | None = None) -> str:
        if isinstance(content, Path):
            content = content.read_bytes()
        data = content if isinstance(content, bytes) else b"".join(content)
        with self._lock:
            self.commits += 1
            key = key_of(data)
            self.data[key] = data
            self.torn.discard(key)
        return key

    @contextmanager
    def batch(self) -> Iterator[Batch]:
        pending = MemoryValues()
        yield pending
        self.data.update(pending.data)
        self.commits += 1


def key_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def joined(name: str, parts: Iterable[bytes]) -> bytes:
    """The output of a node: its name, and a digest of each of its inputs."""
    return b"\n".join([name.encode(), *(hashlib.sha256(part).hexdigest().encode() for part in parts)])


@dataclass
class World:
    """A graph whose outputs are stored, and what has been recomputed, in order."""

    values: MemoryValues = field(default_factory=MemoryValues)
    graph: MetadataGraph = field(default_factory=MetadataGraph)
    made: list[str] = field(default_factory=list)
    recomputers: Recomputers = field(default_factory=Recomputers)
    validators: Validators = field(default_factory=Validators)
    salts: dict[str, bytes] = field(default_factory=dict)  # what nondeterministic nodes add to their output

    def __post_init__(self) -> None:
        self.recomputers.recomputes(CAPABILITY)(self.make)

    def make(self, node: Node, inputs: Inputs) -> bytes:
        self.made.append(node.id)
        return self.output(node.id, [part.bytes() for part in inputs.values()])

    def output(self, name: str, parts: Sequence[bytes]) -> bytes:
        return joined(name, parts) + self.salts.get(name, b"")

    def add(self, name: str, deps: Sequence[str] = (), **metadata: Any) -> Node:
        parts = [self.value(dep) for dep in deps]
        key = self.values.store(self.output(name, parts))
        about = {
            "capability": CAPABILITY,
            "input_hashes": tuple(map(key_of, parts)),
            "output_hashes": (key,),
            **metadata,
        }
        node = Node(id=name, hash=key, deps=tuple(deps), status="completed", metadata=about)  # type: ignore[arg-type]
        self.graph.add(node)
        return node

    def chain(self, *names: str) -> None:
        """Nodes of which each is made from the one before."""
        for at, name in enumerate(names):
            self.add(name, names[at - 1 : at])

    def value(self, name: str) -> bytes:
        return self.values.data[self.key(name)]

    def key(self, name: str) -> str:
        key = self.graph[name].hash
        assert key is not None
        return key

    def lose(self, *names: str) -> None:
        for name in names:
            self.values.data.pop(self.key(name), None)

    def damage(self, *names: str) -> None:
        for name in names:
            self.values.data[self.key(name)] = b"damaged"

    def restore(self, outputs: Outputs | None = None, *, executor: Any = None, **policy: Any) -> RestoreReport:
        return regenerate(self.graph, outputs or StoredOutputs(self.values), self.options(executor, **policy))

    def options(self, executor: Any = None, **policy: Any) -> RegenerationOptions:
        return RegenerationOptions(
            policy=RegenerationPolicy(**policy),
            recomputers=self.recomputers,
            validators=self.validators,
            executor=executor,
        )


def random_world(seed: int, size: int, *, fan: int = 3) -> World:
    """Layers of nodes, each made from up to `fan` earlier ones."""
    rng, world = random.Random(seed), World()
    for at in range(size):
        deps = sorted({f"n{rng.randrange(at)}" for _ in range(min(at, rng.randrange(fan + 1)))}) if at else []
        world.add(f"n{at}", deps)
    return world


def with_changes(graph: MetadataGraph, changed: Mapping[str, Node]) -> MetadataGraph:
    """The graph as it is after a restore in which some outputs came back as new versions."""
    return MetadataGraph.of(graph.head, (changed.get(node.id, node) for node in graph))


def actions(report: RestoreReport) -> dict[str, str]:
    return {node.id: node.action for node in report.nodes}


def result(report: RestoreReport, name: str) -> Any:
    return next(node for node in report.nodes if node.id == name)
